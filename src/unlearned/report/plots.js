"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const plots = specs.map((spec, i) => [document.getElementById(`plot-${i}`), spec]);
  // The buttons are named one by one, because the default ones send the data of a plot to a server.
  const config = { responsive: true, displaylogo: false, displayModeBar: "hover", plotlyServerURL: "", modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]] };
  for (const [place, spec] of plots) Plotly.newPlot(place, spec.data, spec.layout, config);

  // Paper is narrower than most windows, and no resize event tells a plot that it is about to be printed.
  addEventListener("beforeprint", () => { for (const [place] of plots) Plotly.relayout(place, { width: place.classList.contains("small") ? 320 : 660 }); });
  addEventListener("afterprint", () => { for (const [place] of plots) Plotly.relayout(place, { width: null, autosize: true }); });
})();
