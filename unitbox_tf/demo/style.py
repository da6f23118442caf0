"""The style sheet of the page."""

from unitbox_tf import visualize

STYLE = """
#bench { display: grid; grid-template-columns: minmax(280px, 350px) minmax(0, 1fr); gap: 16px 24px;
  grid-template-areas: "drop photo" "settings photo"; grid-template-rows: auto 1fr; }
/* Else it covers the field after a file of another type, until it is clicked away. */
#drop [data-testid="status-tracker"] { display: none; }
#drop { grid-area: drop; } #photo { grid-area: photo; } #settings { grid-area: settings; }
.html-container, .prose { padding: 0 !important; }
.intro h1 { margin: 0; font-size: 1.5rem; }
.intro h2 { margin: 16px 0 0; font-size: 1.2rem; }
.note { color: var(--body-text-color-subdued); font-size: 0.9rem; margin: 4px 0 8px !important; }
.empty, .fault, .summary { border-radius: 8px; padding: 12px 14px; }
.empty { border: 1px dashed var(--border-color-primary); color: var(--body-text-color-subdued);
  min-height: 320px; display: grid; place-content: center; text-align: center; }
.fault { background: var(--error-background-fill); border: 1px solid var(--error-border-color);
  color: var(--error-text-color); overflow-wrap: anywhere; }
.summary { background: var(--block-background-fill); border: 1px solid var(--border-color-primary); }
.summary p { margin: 0 0 8px !important; overflow-wrap: anywhere; }
.summary dl { margin: 0; display: flex; flex-wrap: wrap; gap: 4px 20px; }
.summary dt { color: var(--body-text-color-subdued); font-size: 0.85rem; }
.summary dd { margin: 0; font-variant-numeric: tabular-nums; }
.photo { display: grid; place-items: center; }
.frame { position: relative; }
.frame img { display: block; max-width: 100%; max-height: 72vh; border-radius: 6px; }
.box { position: absolute; border: 2px solid COLOUR; outline: 1px solid rgb(0 0 0 / 50%); }
.box b { position: absolute; left: -2px; padding: 0 4px; background: COLOUR; color: black;
  font-size: 12px; line-height: 16px; white-space: nowrap; }
.box b.above { bottom: 100%; } .box b.inside { top: 0; }
.crowd .box b { display: none; } .crowd .box:hover b { display: block; z-index: 1; }
.rows { max-height: 270px; overflow: auto; }
.rows table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.rows th, .rows td { text-align: right !important; padding: 4px 8px !important;
  border-width: 0 0 1px !important; border-color: var(--border-color-primary) !important; }
.rows table, .rows tr { border-width: 0 !important; }
.rows th { position: sticky; top: 0; background: var(--body-background-fill); }
.maps { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 24px; }
.maps h3 { margin: 0; }
.maps img { width: 100%; border-radius: 6px; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
.sides figure { margin: 0; position: relative; }
.sides figcaption { position: absolute; left: 8px; top: 6px; padding: 0 8px; border-radius: 4px;
  background: rgb(0 0 0 / 65%); color: white; font-size: 0.85rem; }
.bar { height: 14px; border-radius: 4px; margin-top: 10px; }
.ticks { display: flex; justify-content: space-between; font-size: 0.85rem; }
@media (max-width: 760px) {
  #bench { grid-template-columns: minmax(0, 1fr); grid-template-rows: none;
    grid-template-areas: "drop" "photo" "settings"; }
  .empty { min-height: 120px; }
  .rows { font-size: 0.8rem; }
  .rows th, .rows td { padding: 4px !important; }
  .maps { grid-template-columns: minmax(0, 1fr); }
}
""".replace("COLOUR", "rgb({}, {}, {})".format(*visualize.DETECTION_COLOUR))
