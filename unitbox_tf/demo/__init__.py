"""The page of `unitbox demo`: an image in; boxes, heatmaps and timings out.

The machine that serves the page searches the image and forgets it: its file is deleted as soon as it is
read, images reach the browser inside the page, and the page asks no other machine for anything.

`page` is made with gradio (extra `demo`), which is imported when a page is made.
"""
