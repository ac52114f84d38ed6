// Curves as SVG: hover for values, a log scale on request, bands for yardsticks, marks for findings.
const WIDTH = 460, HEIGHT = 230, LEFT = 50, RIGHT = 8, TOP = 10, BOTTOM = 40;

const svgNode = (name, attributes, parent) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
  parent.append(node);
  return node;
};
const brief = (x) => (x !== 0 && (Math.abs(x) >= 1e4 || Math.abs(x) < 1e-2) ? x.toExponential(1) : Number(x.toPrecision(3)).toString());

function roundSteps(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const steps = [];
  for (let x = Math.ceil(low / step) * step; x <= high + step * 1e-9; x += step) steps.push(x);
  return steps;
}

function drawChart(pane, holder) {
  const figure = document.createElement('figure');
  figure.className = 'chart';
  const head = document.createElement('div');
  head.className = 'head';
  const title = document.createElement('h3');
  title.textContent = say[pane.title] || pane.title;
  head.append(title);
  const values = pane.series.flatMap((series) => series.points.map((point) => point[1]));
  const positive = values.every((value) => value > 0);
  const box = document.createElement('input');
  if (positive) {
    const label = document.createElement('label');
    label.className = 'small';
    box.type = 'checkbox';
    box.checked = Math.max(...values) > 50 * Math.min(...values);
    label.append(box, ` ${say.log}`);
    head.append(label);
  }
  const legend = document.createElement('figcaption');
  legend.className = 'legend';
  const svg = svgNode('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': title.textContent }, figure);
  figure.prepend(head);
  figure.append(legend);
  holder.append(figure);

  const right = Math.max(...pane.series.flatMap((series) => series.points.map((point) => point[0]))) || 1;
  const all = values.concat(pane.bands.map((band) => band.value));
  let toY, fromLog;

  function draw() {
    svg.replaceChildren();
    fromLog = positive && box.checked && all.every((value) => value > 0);
    const scale = fromLog ? Math.log10 : (x) => x;
    const inner = fromLog ? values : all;  // a far yardstick must not press the curve flat
    let low = Math.min(...inner.map(scale)), high = Math.max(...inner.map(scale));
    const own = [Math.min(...values.map(scale)), Math.max(...values.map(scale))];
    if (high - low > 8 * (own[1] - own[0] || 1)) [low, high] = own;
    if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
    const x = (value) => LEFT + (value / right) * (WIDTH - LEFT - RIGHT);
    toY = (value) => HEIGHT - BOTTOM - ((scale(value) - low) / (high - low)) * (HEIGHT - BOTTOM - TOP);
    for (const step of roundSteps(low, high, 4)) {
      const at = fromLog ? 10 ** step : step;
      svgNode('line', { x1: LEFT, x2: WIDTH - RIGHT, y1: toY(at), y2: toY(at), stroke: 'var(--line)' }, svg);
      svgNode('text', { x: LEFT - 5, y: toY(at) + 4, 'text-anchor': 'end' }, svg).textContent = brief(at);
    }
    for (const step of roundSteps(0, right, 4)) {
      svgNode('text', { x: x(step), y: HEIGHT - 24, 'text-anchor': step ? 'middle' : 'start' }, svg).textContent = brief(step);
    }
    svgNode('text', { x: WIDTH - RIGHT, y: HEIGHT - 6, 'text-anchor': 'end' }, svg).textContent = say.thousand;
    for (const band of pane.bands) {
      const y = toY(band.value);
      if (y < TOP - 1 || y > HEIGHT - BOTTOM + 1) continue;
      svgNode('rect', { x: LEFT, y: y - 3, width: WIDTH - LEFT - RIGHT, height: 6, fill: 'var(--good)', opacity: band.label === 'real' ? 0.3 : 0.12 }, svg);
      svgNode('text', { x: LEFT + 4, y: y - 5 }, svg).textContent = `${say[band.label]} ${brief(band.value)}`;
    }
    pageData.marks.forEach((mark) => {
      if (mark.x > right) return;
      const line = svgNode('line', { x1: x(mark.x), x2: x(mark.x), y1: TOP, y2: HEIGHT - BOTTOM, stroke: mark.resolved ? 'var(--soft)' : 'var(--bad)', 'stroke-dasharray': '4 3' }, svg);
      svgNode('title', {}, line).textContent = mark.title;
    });
    pane.series.forEach((series, number) => {
      const points = series.points.map(([at, value]) => `${x(at).toFixed(1)},${toY(value).toFixed(1)}`).join(' ');
      svgNode('polyline', { points, fill: 'none', stroke: `var(--c${number % 4})`, 'stroke-width': 1.6 }, svg);
    });
    const cursor = svgNode('line', { y1: TOP, y2: HEIGHT - BOTTOM, stroke: 'var(--soft)', visibility: 'hidden' }, svg);
    svg.onpointermove = (event) => {
      const place = svg.getBoundingClientRect();
      const at = ((event.clientX - place.left) / place.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT) * right;
      tell(Math.min(right, Math.max(0, at)));
      cursor.setAttribute('x1', x(Math.min(right, Math.max(0, at))));
      cursor.setAttribute('x2', cursor.getAttribute('x1'));
      cursor.setAttribute('visibility', 'visible');
    };
    svg.onpointerleave = () => { cursor.setAttribute('visibility', 'hidden'); tell(null); };
  }

  function tell(at) {
    legend.replaceChildren();
    pane.series.forEach((series, number) => {
      const near = at === null ? series.points.at(-1)
        : series.points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
      const part = document.createElement('span');
      part.className = `k${number % 4}`;
      part.textContent = `${series.name} ${brief(near[1])}  `;
      legend.append(part);
    });
    if (at === null) return;
    const near = pageData.marks.filter((mark) => Math.abs(mark.x - at) < right / 50).map((mark) => mark.title);
    legend.append(`${brief(at)} ${say.thousand}${near.length ? `: ${near.join(', ')}` : ''}`);
  }

  box.onchange = draw;
  draw();
  tell(null);
}

(pageData.panes || []).forEach((pane, number) => {
  const more = byId('more-charts');
  drawChart(pane, more && number >= pageData.first ? more : byId('charts'));
});
