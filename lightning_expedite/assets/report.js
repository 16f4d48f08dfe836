"use strict";
(() => {
  const SPACE = "http://www.w3.org/2000/svg";
  const read = (id) => JSON.parse(document.getElementById(id).textContent);

  function element(name, attributes = {}, text = null) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    return made;
  }

  function shape(name, attributes = {}, text = null) {
    const made = document.createElementNS(SPACE, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    return made;
  }

  function fill(select, titles) {
    select.replaceChildren(...titles.map((title, index) => element("option", { value: index }, title)));
  }

  // --- Tables -------------------------------------------------------------------------------------

  function sortTable(table, column, direction) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, index) => {
      if (head.hasAttribute("aria-sort")) head.setAttribute("aria-sort", index === column ? direction : "none");
    });
    const numeric = heads[column].classList.contains("number");
    const sign = direction === "ascending" ? 1 : -1;
    const compare = (one, other) => {
      const [a, b] = [one, other].map((row) => row.cells[column].dataset.value);
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // what is missing comes last
      return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        sortTable(table, column, up ? "ascending" : "descending");
      });
    });
  }

  // --- Chart --------------------------------------------------------------------------------------

  function polygon(corners, radius, inner = null, turn = -Math.PI / 2) {
    const count = inner === null ? corners : 2 * corners;
    const places = Array.from({ length: count }, (_, index) => {
      const reach = inner !== null && index % 2 ? inner : radius;
      const angle = turn + (2 * Math.PI * index) / count;
      return `${(reach * Math.cos(angle)).toFixed(2)},${(reach * Math.sin(angle)).toFixed(2)}`;
    });
    return `M${places.join("L")}Z`;
  }

  const CROSS = "M-2,-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z";
  const MARKERS = {
    o: "M-6,0A6,6 0 1 0 6,0A6,6 0 1 0 -6,0Z",
    s: "M-5.3,-5.3H5.3V5.3H-5.3Z",
    "^": polygon(3, 7.5),
    v: polygon(3, 7.5, null, Math.PI / 2),
    D: polygon(4, 7.2),
    P: CROSS,
    X: polygon(4, 7.5, 3.2, Math.PI / 4),
    "*": polygon(5, 10.5, 4.4),
  };

  function ticks(low, high, count) {
    const rough = (high - low) / Math.max(count, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const found = [];
    for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) {
      found.push([value, value.toFixed(digits).replace(/^-0(?=\.?0*$)/, "0")]);
    }
    return found;
  }

  function range(values, share) {
    const low = Math.min(...values), high = Math.max(...values);
    const margin = share * (high - low || Math.abs(high) || 1);
    return [low - margin, high + margin];
  }

  function startChart(views) {
    const [holder, legend, viewSelect, axisSelect, near] = ["", "-legend", "-view", "-axis", "-near"].map((end) =>
      document.getElementById(`chart${end}`),
    );
    const tip = element("div", { class: "tip", role: "status", hidden: "" });
    const view = () => views[Number(viewSelect.value)];
    const axis = () => view().axes[Number(axisSelect.value)];

    const shown = (point) => !near.checked || point.miou >= Math.max(...view().points.map((one) => one.miou)) - 5;

    function showTip(point, x, y) {
      tip.replaceChildren(element("strong", {}, point.title), ...point.facts.map((fact) => element("span", {}, fact)));
      tip.hidden = false;
      const room = holder.clientWidth - tip.offsetWidth;
      tip.style.left = `${Math.max(0, Math.min(x + 14, room))}px`;
      tip.style.top = `${y > tip.offsetHeight + 14 ? y - tip.offsetHeight - 12 : y + 14}px`;
    }

    function drawFront(svg, points, place, box) {
      const front = axis().front.filter((index) => shown(points[index])).map((index) => place(points[index]));
      if (!front.length) return;
      const corners = axis().more
        ? [[box.left, front[0][1]], ...front.flatMap(([x, y], index) => (index ? [[front[index - 1][0], y], [x, y]] : [[x, y]])), [front.at(-1)[0], box.bottom]]
        : [[front[0][0], box.bottom], ...front.flatMap(([x, y], index) => (index ? [[x, front[index - 1][1]], [x, y]] : [[x, y]])), [box.right, front.at(-1)[1]]];
      svg.append(shape("path", { class: "front", d: `M${corners.map((corner) => corner.map((side) => side.toFixed(1)).join(",")).join("L")}` }));
    }

    function drawAxes(svg, box, xs, ys) {
      const across = (value) => box.left + ((value - xs[0]) / (xs[1] - xs[0])) * (box.right - box.left);
      const up = (value) => box.bottom - ((value - ys[0]) / (ys[1] - ys[0])) * (box.bottom - box.top);
      for (const [value, text] of ticks(...xs, Math.floor((box.right - box.left) / 80))) {
        svg.append(shape("line", { class: "grid", x1: across(value), x2: across(value), y1: box.top, y2: box.bottom }));
        svg.append(shape("text", { class: "tick", x: across(value), y: box.bottom + 18, "text-anchor": "middle" }, text));
      }
      for (const [value, text] of ticks(...ys, Math.floor((box.bottom - box.top) / 50))) {
        svg.append(shape("line", { class: "grid", x1: box.left, x2: box.right, y1: up(value), y2: up(value) }));
        svg.append(shape("text", { class: "tick", x: box.left - 8, y: up(value) + 4, "text-anchor": "end" }, text));
      }
      return (point) => [across(point.values[axis().key]), up(point.miou)];
    }

    function drawPoint(svg, point, index, place) {
      const [x, y] = place(point);
      const onFront = axis().front.includes(index);
      const group = shape("g", {
        class: onFront ? "point" : "point beaten",
        transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`,
        tabindex: 0,
        role: "img",
        "aria-label": [point.title, ...point.facts].join(", "),
      });
      group.append(shape("path", { d: MARKERS[point.marker], fill: point.color }));
      for (const event of ["pointerenter", "focus"]) group.addEventListener(event, () => showTip(point, x, y));
      for (const event of ["pointerleave", "blur"]) group.addEventListener(event, () => (tip.hidden = true));
      svg.append(group);
    }

    function writeTitle(svg, text, box, width) {
      const longest = Math.max(20, Math.floor(width / 7.2));
      const lines = [""];
      for (const word of text.split(" ")) {
        if (lines.at(-1) && lines.at(-1).length + word.length >= longest) lines.push("");
        lines[lines.length - 1] += (lines.at(-1) ? " " : "") + word;
      }
      lines.forEach((line, index) =>
        svg.append(shape("text", { x: box.left, y: box.bottom + 40 + 17 * index }, line)),
      );
      return lines.length;
    }

    function draw() {
      const width = Math.max(holder.clientWidth, 280);
      const points = view().points;
      const placed = points.map((point, index) => [point, index])
        .filter(([point]) => point.values[axis().key] !== null && shown(point));
      const box = { left: 52, right: width - 14, top: 26, bottom: 26 + Math.min(440, Math.max(260, 0.5 * width)) };
      const svg = shape("svg", { role: "group", "aria-label": `mIoU against ${axis().title}` });
      const lines = writeTitle(svg, axis().title, box, box.right - box.left);
      const height = box.bottom + 46 + 17 * lines;
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.append(shape("text", { x: 8, y: 15 }, "mIoU, %"));
      const xs = range(placed.map(([point]) => point.values[axis().key]), 0.06);
      const ys = range(placed.map(([point]) => point.miou), 0.06);
      const place = drawAxes(svg, box, xs, ys);
      drawFront(svg, points, place, box);
      const order = (index) => (axis().front.includes(index) ? 1 : 0); // those on the front lie above the others
      for (const [point, index] of placed.sort((one, other) => order(one[1]) - order(other[1]))) {
        drawPoint(svg, point, index, place);
      }
      tip.hidden = true;
      holder.replaceChildren(svg, tip);
    }

    function drawLegend() {
      const methods = new Map(view().points.map((point) => [point.method, point]));
      const items = [...methods].map(([method, point]) => {
        const item = element("li");
        const sign = shape("svg", { viewBox: "-11 -11 22 22", "aria-hidden": "true" });
        sign.append(shape("path", { d: MARKERS[point.marker], fill: point.color }));
        item.append(sign, method);
        return item;
      });
      legend.replaceChildren(...items, element("li", {}, "pale: beaten by another setting on this axis"));
    }

    function chooseView() {
      fill(axisSelect, view().axes.map((one) => one.name));
      drawLegend();
      draw();
    }

    fill(viewSelect, views.map((one) => one.title));
    viewSelect.addEventListener("change", chooseView);
    axisSelect.addEventListener("change", draw);
    near.addEventListener("change", draw);
    chooseView();
    let known = holder.clientWidth;
    new ResizeObserver(() => {
      if (holder.clientWidth !== known) {
        known = holder.clientWidth;
        draw();
      }
    }).observe(holder);
  }

  // --- Classes ------------------------------------------------------------------------------------

  function startClasses(subjects) {
    const [table, subjectSelect, settingSelect] = ["class-table", "class-subject", "class-setting"].map((id) =>
      document.getElementById(id),
    );
    const subject = () => subjects[Number(subjectSelect.value)];

    function bar(difference, end) {
      const holder = element("span", { class: "bar" });
      if (difference) {
        const part = element("i", { class: difference < 0 ? "down" : "up" });
        part.style.width = `${(50 * Math.abs(difference)) / end}%`;
        holder.append(part);
      }
      return holder;
    }

    function number(value, signed) {
      if (value === null) return "–";
      const text = Math.abs(value).toFixed(2);
      if (!signed || Number(text) === 0) return text;
      return (value < 0 ? "−" : "+") + text;
    }

    function cell(value, signed) {
      const made = element("td", { class: "number" }, number(value, signed));
      if (value !== null) made.dataset.value = value;
      return made;
    }

    function draw() {
      const known = subject();
      const { differences } = known.settings[Number(settingSelect.value)];
      const all = known.settings.flatMap((setting) => setting.differences).filter((value) => value !== null);
      const end = Math.max(0.1, ...all.map(Math.abs)); // one scale for all settings, so that they can be compared
      const rows = known.classes.map((name, index) => {
        const row = element("tr");
        const last = element("td");
        last.append(bar(differences[index], end));
        row.append(
          element("th", { scope: "row", "data-value": name }, name),
          cell(known.unreduced[index], false),
          cell(differences[index], true),
          last,
        );
        return row;
      });
      table.tBodies[0].replaceChildren(...rows);
      const heads = [...table.tHead.rows[0].cells];
      const column = heads.findIndex((head) => ["ascending", "descending"].includes(head.getAttribute("aria-sort")));
      sortTable(table, column, heads[column].getAttribute("aria-sort"));
    }

    function chooseSubject() {
      fill(settingSelect, subject().settings.map((setting) => setting.title));
      draw();
    }

    fill(subjectSelect, subjects.map((one) => one.title));
    subjectSelect.addEventListener("change", chooseSubject);
    settingSelect.addEventListener("change", draw);
    chooseSubject();
  }

  const views = read("chart-data").filter((view) => view.axes.length);
  if (views.length) startChart(views);
  const subjects = read("class-data");
  if (subjects.length) startClasses(subjects);
})();
