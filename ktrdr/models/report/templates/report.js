"use strict";
(() => {
  // Of a chart on paper: what fits between the margins of A4 and Letter.
  const PAPER = { width: 650, smallWidth: 310, height: 700 };
  const root = document.documentElement;
  const specs = JSON.parse(document.getElementById("figures").textContent);
  const plots = [...document.querySelectorAll("[data-figure]")];
  const config = {
    responsive: true,
    displaylogo: false,
    typesetMath: false,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
    // Nothing leaves this page: plotly.js would offer to send a chart's data to its maker.
    showSendToCloud: false,
    plotlyServerURL: "",
  };

  // A colour in a figure is "@role" or "@role/opacity"; the style sheet knows the roles.
  function paints() {
    const style = getComputedStyle(root);
    return (token) => {
      const [role, opacity] = token.slice(1).split("/");
      const hex = style.getPropertyValue(`--${role}`).trim();
      if (opacity === undefined) return hex;
      const channels = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
      return `rgba(${channels.join(",")},${opacity})`;
    };
  }

  // Only under a key that is a colour, so that a class named "@up" keeps its name.
  function painted(value, paint, isColour) {
    if (typeof value === "string") return isColour && value.startsWith("@") ? paint(value) : value;
    if (Array.isArray(value)) return value.map((item) => painted(item, paint, isColour));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, painted(item, paint, /color(scale)?$/.test(key))]),
    );
  }

  function theme(paint) {
    const axis = {
      automargin: true,
      gridcolor: paint("@grid"),
      linecolor: paint("@border"),
      zerolinecolor: paint("@border"),
      zeroline: false,
      ticks: "",
      exponentformat: "power",
      title: { standoff: 10, font: { size: 12, color: paint("@muted") } },
      tickfont: { size: 11.5, color: paint("@muted") },
    };
    const font = { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: paint("@ink") };
    return {
      layout: {
        font,
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        margin: { l: 56, r: 14, t: 58, b: 44 },
        xaxis: axis,
        yaxis: axis,
        hoverlabel: { bgcolor: paint("@panel"), bordercolor: paint("@border"), font },
        legend: { orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "top", yref: "container", traceorder: "normal" },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: paint("@muted"), activecolor: paint("@accent") },
      },
    };
  }

  function draw(plot, onPaper = false) {
    const paint = paints();
    const spec = painted(specs[plot.dataset.figure], paint, false);
    const height = parseInt(plot.dataset.height, 10);
    plot.querySelector(".pending")?.remove();
    const layout = { ...spec.layout, height, template: theme(paint), autosize: !onPaper };
    if (onPaper) {
      layout.width = plot.closest(".small") ? PAPER.smallWidth : PAPER.width;
      layout.height = Math.min(height, PAPER.height);
    }
    const bar = plot.closest(".small") ? { displayModeBar: false } : {};
    return Plotly.react(plot, spec.data, layout, { ...config, ...bar });
  }

  // The library is in the page deflated. The policy of the page allows exactly this script, by its hash.
  async function loadLibrary() {
    const packed = document.getElementById("plotting-library").textContent;
    const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    if (typeof Plotly === "undefined") throw new Error("the plotting library did not start");
  }

  // One chart at a time, so that the page can be scrolled meanwhile.
  function drawNext(waiting) {
    const plot = waiting.shift();
    if (plot === undefined) return;
    draw(plot).then(() => setTimeout(drawNext, 0, waiting));
  }

  function wireViews() {
    for (const button of document.querySelectorAll("[data-update]")) {
      button.addEventListener("click", () => {
        for (const other of button.parentElement.children) other.setAttribute("aria-pressed", other === button);
        Plotly.relayout(document.getElementById(button.dataset.plot), JSON.parse(button.dataset.update));
      });
    }
  }

  function follow() {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawNext([...plots]));
    addEventListener("beforeprint", () => {
      root.dataset.theme = "light";
      for (const plot of plots) draw(plot, true);
    });
    addEventListener("afterprint", () => {
      delete root.dataset.theme;
      drawNext([...plots]);
    });
  }

  loadLibrary().then(
    () => {
      wireViews();
      follow();
      drawNext([...plots]);
    },
    (error) => {
      for (const note of document.querySelectorAll(".pending")) note.textContent = `This chart cannot be drawn here: ${error.message}.`;
    },
  );
})();
