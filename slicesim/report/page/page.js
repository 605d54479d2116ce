"use strict";
(() => {
  const { figures, maps } = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 760px)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const styled = (given) => {
    const axis = (own = {}) => ({
      gridcolor: colour("--line"), linecolor: colour("--line"), automargin: true, ...own,
    });
    const small = narrow.matches;
    return {
      height: 320, bargap: 0.2, ...given,
      xaxis: axis(given.xaxis), yaxis: axis(given.yaxis),
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--ink") },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: small ? 44 : 58, r: 10, t: 34, b: 46 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal" },
      hoverlabel: { namelength: -1, bgcolor: colour("--band"), font: { color: colour("--ink") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--accent") },
      dragmode: small ? false : "zoom",
    };
  };
  const ways = {
    responsive: true, displaylogo: false, modeBarButtons: [["resetScale2d", "toImage"]],
    toImageButtonOptions: { format: "svg" },
  };
  const draw = () => Promise.all(figures.map(
    ({ id, data, layout }) => Plotly.react(id, data, styled(layout), ways)));

  const gigabytes = (bytes) => (bytes / 1e9).toFixed(2) + " GB";
  const decoded = (map, place) => {
    const cells = map.cells[place], rows = [];
    for (let start = 0; start < cells.length; start += map.experts)
      rows.push(Array.from(cells.slice(start, start + map.experts), Number));
    return rows;
  };
  const said = (map, place, rows) => {
    const counts = map.names.map(() => 0);
    let bytes = 0;
    rows.forEach((row, layer) => row.forEach((cell) => {
      counts[cell] += 1;
      bytes += (cell & map.msb ? map.msb_bytes[layer] : 0) + (cell & map.lsb ? map.lsb_bytes[layer] : 0);
    }));
    const parts = counts.map((count, cell) => [count, cell]).filter(([count, cell]) => count && cell);
    const text = parts.map(([count, cell]) => `${count} ${map.names[cell]}`).join(", ");
    return `${map.when[place]}: ${text || "empty"}; ${gigabytes(bytes)}`;
  };
  const follow = (map) => {
    const chart = document.getElementById(map.id);
    const [button, slider, output] = chart.parentElement.querySelector(".slider").children;
    const show = () => {
      const place = Number(slider.value), rows = decoded(map, place);
      figures.find((figure) => figure.id === map.id).data[0].z = rows;
      Plotly.restyle(chart, { z: [rows] }, [0]);
      output.textContent = said(map, place, rows);
    };
    slider.max = map.cells.length - 1;
    slider.value = slider.max;
    slider.addEventListener("input", show);
    let timer = 0;
    button.addEventListener("click", () => {
      if (timer) { clearInterval(timer); timer = 0; button.innerHTML = "&#9654;"; return; }
      if (slider.value === slider.max) slider.value = 0;
      button.innerHTML = "&#10073;&#10073;";
      timer = setInterval(() => {
        if (slider.value === slider.max) { button.click(); return; }
        slider.value = Number(slider.value) + 1;
        show();
      }, 180);
    });
    show();
  };

  draw().then(() => {
    maps.forEach(follow);
    document.body.dataset.drawn = figures.length;
  });
  dark.addEventListener("change", draw);
})();
