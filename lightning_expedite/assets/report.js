"use strict";
(() => {
  // --- Tables: sort by a column's heading, show the rows that contain the filter's words -------------------------

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const direction = head.ariaSort === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => (other.ariaSort = other === head ? direction : "none"));
      const sign = direction === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column].dataset.value;
      const rows = [...table.tBodies[0].rows].sort((one, other) => {
        const [a, b] = [key(one), key(other)];
        if (!a || !b) return !a - !b; // missing values are last
        return sign * (head.classList.contains("number") ? a - b : a.localeCompare(b, "en", { numeric: true }));
      });
      table.tBodies[0].append(...rows);
    }));
  }
  for (const filter of document.querySelectorAll("input[type=search]")) {
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/);
      for (const row of document.getElementById(filter.dataset.table).tBodies[0].rows) {
        row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
      }
    });
  }

  // --- Chart -----------------------------------------------------------------------------------------------------

  const chart = document.getElementById("chart");
  if (!chart) return;
  const [viewSelect, axisSelect] = ["chart-view", "chart-axis"].map((id) => document.getElementById(id));
  const source = document.getElementById("chart-data").textContent;
  let views;

  const fill = (select, names) => select.replaceChildren(...names.map((name, index) => new Option(name, index)));

  async function draw() {
    const css = getComputedStyle(document.documentElement);
    const color = (name) => css.getPropertyValue(name).trim();
    views = JSON.parse(source.replaceAll(/var\((--[a-z]+)\)/g, (_, name) => color(name)));
    const { data, title } = views[viewSelect.value ?? 0].axes[axisSelect.value ?? 0];
    const narrow = chart.clientWidth < 560;
    const lines = { gridcolor: color("--line"), zeroline: false, automargin: true };
    await Plotly.react(chart, data, {
      font: { color: color("--text"), family: getComputedStyle(document.body).fontFamily, size: 13 },
      paper_bgcolor: color("--back"),
      plot_bgcolor: color("--back"),
      hoverlabel: { align: "left", bgcolor: color("--soft"), bordercolor: color("--faint"), font: { color: color("--text") } },
      hovermode: "closest",
      height: narrow ? 420 : 520,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      margin: { l: 10, r: 10, t: 40, b: 10 },
      xaxis: { ...lines, title: { text: narrow ? title.replace(" (", "<br>(") : title } },
      yaxis: { ...lines, title: { text: "mIoU, %" } },
    }, { responsive: true, displaylogo: false, typesetMath: false, modeBarButtonsToRemove: ["select2d", "lasso2d"],
      toImageButtonOptions: { format: "svg", filename: "front" } });
    for (const point of chart.querySelectorAll(".points path")) {
      const { i, trace } = { ...point.__data__, trace: point.closest(".trace").__data__[0].trace };
      const label = (trace.text?.[i] ?? "").replaceAll("<br>", ", ").replaceAll(/<\/?b>/g, "");
      for (const [name, value] of [["tabindex", 0], ["role", "img"], ["aria-label", label]]) point.setAttribute(name, value);
      point.onfocus = () => Plotly.Fx.hover(chart, [{ curveNumber: trace.index, pointNumber: i }]);
      point.onblur = () => Plotly.Fx.unhover(chart);
    }
  }

  function chooseView() {
    fill(axisSelect, views[viewSelect.value ?? 0].axes.map((axis) => axis.name));
    draw();
  }

  views = JSON.parse(source);
  fill(viewSelect, views.map((view) => view.title));
  viewSelect.addEventListener("change", chooseView);
  axisSelect.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  chooseView();
})();
