// Three sliders over frames that tools/site/learn.py has computed. No library, and nothing from elsewhere.
(() => {
  "use strict";
  const root = document.getElementById("moving-statistics");
  const SVG = "http://www.w3.org/2000/svg";
  const HEIGHT = 170, LEFT = 34, RIGHT = 8, TOP = 8, BOTTOM = 22;
  const CHARTS = [
    { key: "mean", title: "mean", low: -0.5, high: 3.5, ticks: [0, 1, 2, 3], target: (population) => population[0] },
    { key: "variance", title: "variance", low: 0, high: 2, ticks: [0, 0.5, 1, 1.5, 2], target: (population) => population[1] },
    { key: "spread", title: "deviation of the output", low: 0, high: 2, ticks: [0, 0.5, 1, 1.5, 2], target: () => 1 },
  ];
  const SLIDERS = [
    { key: "batch", label: "batch size", start: 8 },
    { key: "decay", label: "decay", start: 0.9 },
    { key: "eps", label: "epsilon", start: 1e-5 },
  ];
  const STYLE = `
    #moving-statistics { --dot: #0072b2; --line: #d55e00; --faint: #767676; font-size: .7rem; }
    [data-md-color-scheme=slate] #moving-statistics { --dot: #56b4e9; --line: #ff9b57; --faint: #9a9a9a; }
    #moving-statistics label { display: grid; grid-template-columns: 6em 1fr 4em; gap: .6em; align-items: center; min-height: 2.2em; }
    #moving-statistics input { width: 100%; accent-color: var(--line); }
    #moving-statistics figure { margin: .6em 0 0; width: 100%; max-width: none; text-align: left; }
    #moving-statistics figcaption { margin: 0; font-style: normal; font-weight: 700; max-width: none; }
    #moving-statistics svg { display: block; width: 100%; height: ${HEIGHT}px; }
    #moving-statistics text { fill: currentColor; font-size: 11px; }
    #moving-statistics .grid { stroke: var(--faint); stroke-opacity: .3; }
    #moving-statistics .target { stroke: var(--faint); stroke-dasharray: 5 4; fill: none; stroke-width: 1.5; }
    #moving-statistics .dot { fill: var(--dot); stroke: var(--dot); }
    #moving-statistics .dot.beyond { fill: none; }
    #moving-statistics .moving { stroke: var(--line); fill: none; stroke-width: 2.2; }`;

  function element(name, attributes, parent, text) {
    const made = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  const say = (value) => (value !== 0 && value < 1e-3 ? value.toExponential() : String(value));

  // The numbers of a chart at these positions of the sliders: dots and line as [step, value], in the population's units.
  function select(frames, at, key) {
    const { batches, averages, unit, every } = frames;
    const dots = batches[at.batch][key], line = averages[at.batch][at.decay][key];
    const series = (numbers) =>
      key === "spread"
        ? numbers[at.eps].map((value, i) => [(i + 1) * every, value / unit])
        : numbers.map((value, i) => [i + 1, value / unit]);
    return { dots: series(dots), line: series(line) };
  }

  function draw(chart, frames, at) {
    const width = Math.max(chart.svg.clientWidth, 200);
    const { low, high } = chart;
    const x = (step) => LEFT + ((width - LEFT - RIGHT) * step) / frames.steps;
    const y = (value) => TOP + ((HEIGHT - TOP - BOTTOM) * (high - Math.min(Math.max(value, low), high))) / (high - low);
    const path = (points) => points.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    chart.svg.replaceChildren();
    chart.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    for (const tick of chart.ticks) {
      element("svg:line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }, chart.svg);
      element("svg:text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, chart.svg, tick);
    }
    for (let step = 0; step <= frames.steps; step += 30)
      element("svg:text", { x: x(step), y: HEIGHT - 6, "text-anchor": step === frames.steps ? "end" : "middle" }, chart.svg, step);
    const [before, after] = frames.populations.map(chart.target);
    element("svg:path", { class: "target", d: path([[0, before], [frames.change, before], [frames.change, after], [frames.steps, after]]) }, chart.svg);
    const { dots, line } = select(frames, at, chart.key);
    for (const [step, value] of dots) {
      const beyond = value < low || value > high ? " beyond" : "";
      element("svg:circle", { class: `dot${beyond}`, cx: x(step).toFixed(1), cy: y(value).toFixed(1), r: 2.2 }, chart.svg);
    }
    element("svg:path", { class: "moving", d: path(line) }, chart.svg);
  }

  function summary(frames, at) {
    const value = (key, step) => {
      const { line } = select(frames, at, key);
      return line.find(([each]) => each === step)[1].toFixed(2);
    };
    return [frames.change, frames.steps]
      .map((step, i) => {
        const [mean, variance] = frames.populations[i];
        return `After ${step} batches: moving mean ${value("mean", step)} (population ${mean}), moving variance ${value("variance", step)} (${variance}), output's deviation in evaluation ${value("spread", step)}.`;
      })
      .join(" ");
  }

  function start(frames) {
    root.replaceChildren();
    element("style", {}, root, STYLE);
    const at = {};
    const charts = [];
    let said;
    const update = () => {
      for (const chart of charts) draw(chart, frames, at);
      said.textContent = summary(frames, at);
    };
    for (const { key, label, start: first } of SLIDERS) {
      at[key] = frames[key].indexOf(first);
      const row = element("label", {}, root);
      element("span", {}, row, label);
      const input = element("input", { type: "range", min: 0, max: frames[key].length - 1, step: 1, name: key }, row);
      const shown = element("output", {}, row);
      const move = () => {
        at[key] = Number(input.value);
        shown.textContent = say(frames[key][at[key]]);
        input.setAttribute("aria-valuetext", shown.textContent);
      };
      input.value = at[key];
      move();
      input.addEventListener("input", () => {
        move();
        update();
      });
    }
    said = element("p", { "aria-live": "polite" }, root);
    for (const chart of CHARTS) {
      const figure = element("figure", {}, root);
      element("figcaption", {}, figure, chart.title);
      charts.push({ ...chart, svg: element("svg:svg", { role: "img", "aria-label": chart.title }, figure) });
    }
    new ResizeObserver(update).observe(root);
    update();
  }

  fetch(root.dataset.frames)
    .then((answer) => answer.json())
    .then(start)
    .catch((error) => element("p", {}, root, `The frames could not be loaded: ${error.message}`));
})();
