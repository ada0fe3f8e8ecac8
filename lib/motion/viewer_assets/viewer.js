/** Ties the page together: video, scene, charts and buttons all show one frame. */

import { bytes, readScene, takeText } from 'data';
import { Player } from 'player';
import { CONTACT_COLOUR, Stage } from 'stage';
import { ATTENTION, Cursor, attentionAt, cssColour, drawAttention, drawContacts, drawLanes } from 'timeline';

const $ = (id) => document.getElementById(id);
const scene = readScene(takeText('scene-data'));
const video = $('video');
const last = scene.nFrames - 1;
let chosen = 0; // whose charts are shown, and who is followed

addEventListener('error', ({ message }) => say(`The scene cannot be shown: ${message}`), { once: true });
const player = new Player(video, scene, { onFrame: showFrame, onPicture: showPicture, onState: showState });
video.style.aspectRatio = `${scene.camera.width} / ${scene.camera.height}`;
video.src = URL.createObjectURL(new Blob([bytes(takeText('video-data'))], { type: 'video/webm' }));
const stage = new Stage($('canvas'), scene, video, showViews);
const cursors = ['attention', 'contacts'].map((id) => new Cursor($(id), scene.nFrames, (at) => player.seek(at)));

// What is on the page
$('name').textContent = $('name').title = scene.name;
const people = `${scene.people.length} ${scene.people.length === 1 ? 'person' : 'people'}`;
$('facts').textContent = `${people} · ${scene.nFrames} frames · ${+scene.fps.toFixed(2)} per second`;
$('frame').max = last;
if (scene.cameraMoves) {
  say('The video camera moves: each path is the person’s own, and people do not stand where they stood to '
    + 'each other.');
  $('video-view').disabled = true;
  document.querySelector('[data-layer=camera]').disabled = true;
}
for (const [name, colour] of ATTENTION) {
  const entry = document.createElement('span');
  entry.style.setProperty('--colour', colour);
  entry.append(name, document.createElement('b'));
  $('attention-legend').append(entry);
}
scene.people.forEach((person, index) => {
  const row = document.createElement('div');
  row.className = 'person';
  row.style.setProperty('--colour', cssColour(person.colour));
  const toggle = button(`Person ${person.id}`, () => setPerson(index, !pressed(toggle)));
  toggle.title = 'Show or hide';
  toggle.className = 'toggle';
  toggle.setAttribute('aria-pressed', true);
  const choose = button('', () => choosePerson(index));
  choose.className = 'choose';
  choose.title = 'Show the charts of this person';
  const end = person.start + person.translations.length / 3 - 1;
  choose.textContent = `frames ${person.start}–${end}`;
  row.append(toggle, choose);
  $('people').append(row);
});

// Buttons
const layers = { floor: true, contacts: true, paths: true, camera: false };
for (const element of document.querySelectorAll('[data-layer]')) {
  const { layer } = element.dataset;
  setPressed(element, layers[layer]);
  element.onclick = () => {
    setPressed(element, !pressed(element));
    stage.setLayer(layer, pressed(element));
  };
}
for (const element of document.querySelectorAll('[data-style]')) {
  element.onclick = () => {
    stage.setStyle(element.dataset.style);
    showViews();
  };
}
$('play').onclick = video.onclick = togglePlay;
$('back').onclick = () => step(-1);
$('forth').onclick = () => step(1);
$('frame').oninput = () => player.seek(+$('frame').value);
$('speed').onchange = () => { player.speed = +$('speed').value; };
$('loop').onclick = () => {
  player.loop = !player.loop;
  setPressed($('loop'), player.loop);
};
$('video-view').onclick = () => stage.viewFromCamera(!stage.fromCamera);
$('reset').onclick = () => stage.resetView();
$('follow').onclick = () => {
  stage.follow(stage.following ? null : chosen);
  showViews();
};

$('save').onclick = save;

const KEYS = {
  ' ': togglePlay,
  ArrowLeft: (event) => step(event.shiftKey ? -10 : -1),
  ArrowRight: (event) => step(event.shiftKey ? 10 : 1),
  Home: () => player.seek(0),
  End: () => player.seek(last),
  l: () => $('loop').click(),
  v: () => $('video-view').click(),
  r: () => $('reset').click(),
  f: () => $('follow').click(),
};
addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches('select')) return;
  if (event.key === ' ' && event.target.matches('button')) return; // which presses that button
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act(event);
});

new ResizeObserver(drawCharts).observe($('chart'));
new ResizeObserver(() => drawLanes($('lanes'), scene)).observe($('scrub'));
choosePerson(0);
showFrame(0);
showState();
showViews();

function save() {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([bytes($('glb-data').textContent)], { type: 'model/gltf-binary' }));
  link.download = `${scene.name}.glb`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}

function say(text) {
  $('note').hidden = false;
  $('note').textContent = text;
}

function button(text, onclick) {
  const element = document.createElement('button');
  return Object.assign(element, { textContent: text, onclick });
}

function pressed(element) { return element.getAttribute('aria-pressed') === 'true'; }
function setPressed(element, on) { element.setAttribute('aria-pressed', on); }

function togglePlay() {
  if (player.playing) player.pause();
  else player.play();
}

function step(frames) {
  player.pause();
  player.seek(player.frame + frames);
}

function setPerson(index, on) {
  setPressed($('people').children[index].firstChild, on);
  stage.setPerson(index, on);
}

function choosePerson(index) {
  chosen = index;
  [...$('people').children].forEach((row, i) => row.classList.toggle('chosen', i === index));
  if (stage.following) stage.follow(index);
  if (scene.people[index]) $('chart-person').textContent = `of person ${scene.people[index].id}`;
  drawCharts();
  showAttention();
}

function drawCharts() {
  const person = scene.people[chosen];
  if (!person) return;
  $('attention-chart').hidden = !person.attention.some((share) => share > 0);  // not every encoder has it
  if (!$('attention-chart').hidden) drawAttention($('attention'), scene, person);
  drawContacts($('contacts'), scene, person, CONTACT_COLOUR);
  for (const cursor of cursors) cursor.show(player.frame);
}

function showFrame(frame) {
  stage.show(frame);
  $('frame').value = frame;
  $('clock').textContent = `${String(frame).padStart(String(last).length, '\u2007')} / ${last}`
    + `   ${(frame / scene.fps).toFixed(2)} s`;
  for (const cursor of cursors) cursor.show(frame);
  showAttention();
}

function showAttention() {
  const shares = scene.people[chosen] && attentionAt(scene.people[chosen], player.frame);
  document.querySelectorAll('#attention-legend b').forEach((element, i) => {
    element.textContent = shares ? `${Math.round(100 * shares[i])} %` : '–';
  });
}

function showPicture() {
  stage.texture.needsUpdate = true;
  stage.invalidate();
}

function showState() {
  $('play').setAttribute('aria-label', player.playing ? 'Pause' : 'Play');
  $('play').classList.toggle('playing', player.playing);
  $('no-video').hidden = !player.broken;
}

function showViews() {
  setPressed($('video-view'), stage.fromCamera);
  setPressed($('follow'), stage.following !== null);
  for (const element of document.querySelectorAll('[data-style]')) {
    setPressed(element, element.dataset.style === stage.style);
  }
}

/** For tests and the console: the page by frame, person and joint number. */
window.tcmr = {
  get frame() { return player.frame; },
  get playing() { return player.playing; },
  /** Resolves when scene and video show the frame. */
  async show(frame) {
    player.pause();
    await player.seek(frame);
    await stage.drawing;
  },
  /** Where the canvas shows a joint of a person (its number among those of the scene): x, y in CSS pixels. */
  project: (person, joint) => stage.project(person, joint),
};
