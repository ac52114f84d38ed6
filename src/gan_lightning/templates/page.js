const byId = (id) => document.getElementById(id);
const pageData = JSON.parse(byId('page-data').textContent);
const say = pageData.say;

byId('theme').onclick = () => {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === 'dark' ? 'light' : 'dark';
};

document.addEventListener('click', async (event) => {
  const button = event.target.closest('[data-copy]');
  if (!button) return;
  const source = byId(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = say.copied;
  } catch {  // a page from a file may not be allowed to: select it, so that Ctrl+C does it
    getSelection().selectAllChildren(source);
  }
  setTimeout(() => { button.textContent = say.copy_it; }, 1500);
});

// -- the pictures over time ------------------------------------------------------------------

const frames = pageData.frames || [];
let moment = frames.length - 1;
let timer = null;

function showMoment(number) {
  moment = number;
  const frame = frames[moment];
  byId('generated').src = frame.picture;
  byId('when').textContent = frame.name;
  byId('time').value = moment;
  labelTiles();
}

function labelTiles() {
  const scores = frames[moment].scores;
  byId('tiles').querySelectorAll('button').forEach((tile, k) => {
    const score = scores.length ? scores[k].toFixed(2) : '';
    tile.firstChild.textContent = score;
    tile.setAttribute('aria-label', `${say.picture} ${k + 1}${score && `, ${say.discriminator} ${score}`}`);
  });
}

function play() {
  if (timer) {
    clearInterval(timer);
    timer = null;
  } else {
    if (moment === frames.length - 1) showMoment(0);
    timer = setInterval(() => {
      showMoment(moment + 1);
      if (moment === frames.length - 1) play();
    }, 350);
  }
  byId('play').textContent = timer ? say.stop : say.play;
}

if (frames.length) {
  for (let k = 0; k < 64; k++) {
    const tile = document.createElement('button');
    tile.type = 'button';
    tile.append(document.createElement('span'));
    tile.onclick = () => enlarge(k);
    byId('tiles').append(tile);
  }
  labelTiles();
  byId('scored').onchange = (event) => byId('album').classList.toggle('scored', event.target.checked);
}
if (frames.length > 1) {
  byId('time').oninput = (event) => showMoment(Number(event.target.value));
  byId('play').onclick = play;
}

// -- one picture, enlarged ---------------------------------------------------------------------

let chosen = 0;
const closer = byId('closer');

function crop(canvas, source, number) {
  const [width, height] = pageData.tile;
  const image = new Image();
  canvas.width = width;
  canvas.height = height;
  image.onload = () => {  // a picture in the page may be smaller than the one on the disk
    const scale = image.naturalWidth / (8 * (width + 2) + 2);
    const x = (2 + (number % 8) * (width + 2)) * scale;
    const y = (2 + Math.floor(number / 8) * (height + 2)) * scale;
    canvas.getContext('2d').drawImage(image, x, y, width * scale, height * scale, 0, 0, width, height);
  };
  image.src = source;
}

function enlarge(number) {
  chosen = (number + 64) % 64;
  const frame = frames[moment];
  const score = frame.scores.length ? `, ${say.discriminator} ${frame.scores[chosen].toFixed(3)}` : '';
  byId('closer-title').textContent = `${say.seed} ${pageData.seed + chosen}${score}`;
  crop(byId('closer-picture'), frame.picture, chosen);
  byId('closer-nearest').hidden = !frame.nearest;
  if (frame.nearest) crop(byId('closer-nearest'), frame.nearest, chosen);
  byId('closer-caption').textContent = frame.nearest ? say.nearest : say.no_nearest;
  byId('closer-again').hidden = moment !== frames.length - 1;
  byId('closer-command').textContent = `${pageData.sample} --seed ${pageData.seed + chosen} --num-images 1`;
  if (!closer.open) closer.showModal();
}

if (closer) {
  byId('closer-close').onclick = () => closer.close();
  byId('closer-previous').onclick = () => enlarge(chosen - 1);
  byId('closer-next').onclick = () => enlarge(chosen + 1);
  closer.onclick = (event) => { if (event.target === closer) closer.close(); };
  closer.onkeydown = (event) => {
    if (event.key === 'ArrowLeft') enlarge(chosen - 1);
    if (event.key === 'ArrowRight') enlarge(chosen + 1);
  };
}
