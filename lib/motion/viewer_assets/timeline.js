/** Charts over the frames of the video, drawn once; a cursor moves over them. */

import { rowOf } from 'data';

export const ATTENTION = [['past', '#5b8def'], ['current', '#f2b84b'], ['future', '#c86bd9']];
const FEET = ['left heel', 'left toe', 'right heel', 'right toe'];
const LABELS = 62; // px

/** A canvas in device pixels, with its size in CSS pixels. */
function prepare(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = Math.min(window.devicePixelRatio, 2);
  canvas.width = Math.max(1, width * scale);
  canvas.height = Math.max(1, height * scale);
  const draw = canvas.getContext('2d');
  draw.scale(scale, scale);
  draw.font = '11px system-ui, sans-serif';
  draw.textBaseline = 'middle';
  return { draw, width, height };
}

/** Where a frame's column begins, in CSS pixels from the chart's left. */
const column = (frame, nFrames, width) => LABELS + (frame / nFrames) * (width - LABELS);

/** Where people are in the film: one line of its colour each. */
export function drawLanes(canvas, scene) {
  const { draw, width, height } = prepare(canvas);
  const step = height / Math.max(scene.people.length, 1);
  scene.people.forEach((person, i) => {
    const frames = person.translations.length / 3;
    draw.fillStyle = cssColour(person.colour);
    draw.fillRect((person.start / scene.nFrames) * width, i * step, (frames / scene.nFrames) * width,
      Math.max(step - 1, 1));
  });
}

/** Stacked shares of past, current and future. */
export function drawAttention(canvas, scene, person) {
  const { draw, width, height } = prepare(canvas);
  const frames = person.attention.length / 3;
  const x = (row) => column(person.start + row, scene.nFrames, width);
  draw.fillStyle = '#ffffff0d';
  draw.fillRect(LABELS, 0, width - LABELS, height);
  // Each part covers what lies below it, from the first that is drawn, which is all of the chart, to the last.
  const above = new Float32Array(frames);
  ATTENTION.forEach(([, colour], part) => {
    draw.fillStyle = colour;
    draw.beginPath();
    draw.moveTo(x(0), height);
    for (let row = 0; row < frames; row++) {
      draw.lineTo(x(row), above[row] * height);
      draw.lineTo(x(row + 1), above[row] * height);
      above[row] += person.attention[3 * row + part];
    }
    draw.lineTo(x(frames), height);
    draw.fill();
  });
  draw.fillStyle = '#93a1b8';
  draw.textAlign = 'right';
  draw.fillText('100 %', LABELS - 8, 7);
  draw.fillText('0 %', LABELS - 8, height - 7);
}

export function drawContacts(canvas, scene, person, colour) {
  const { draw, width, height } = prepare(canvas);
  const step = height / FEET.length;
  FEET.forEach((name, foot) => {
    const top = foot * step + 2;
    draw.fillStyle = '#93a1b8';
    draw.textAlign = 'right';
    draw.fillText(name, LABELS - 8, top + step / 2 - 1);
    draw.fillStyle = '#ffffff0d';
    draw.fillRect(LABELS, top, width - LABELS, step - 4);
    draw.fillStyle = colour;
    const frames = person.contacts.length / 4;
    const rests = (row) => row < frames && person.contacts[4 * row + foot] > 0;
    for (let row = 0, end; row < frames; row = end) {
      for (end = row + 1; rests(row) && rests(end);) end++;
      const x = column(person.start + row, scene.nFrames, width);
      if (rests(row)) draw.fillRect(x, top, column(person.start + end, scene.nFrames, width) - x, step - 4);
    }
  });
}

/** Share of each part of the attention in a frame, null where the person is not there. */
export function attentionAt(person, frame) {
  const row = rowOf(person, frame);
  return row < 0 ? null : person.attention.subarray(3 * row, 3 * row + 3);
}

/** A line over a chart at the current frame; clicks and drags on the chart go to frames. */
export class Cursor {
  constructor(canvas, nFrames, seek) {
    Object.assign(this, { canvas, nFrames });
    const frame = document.createElement('div');
    frame.className = 'chart';
    canvas.replaceWith(frame);
    this.line = document.createElement('i');
    frame.append(canvas, this.line);
    const go = (event) => {
      if (!(event.buttons & 1)) return;
      const { left, width } = canvas.getBoundingClientRect();
      seek(Math.floor(((event.clientX - left - LABELS) / (width - LABELS)) * nFrames));
    };
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId);
      go(event);
    });
    canvas.addEventListener('pointermove', go);
  }

  show(frame) {
    this.line.style.left = `${column(frame + 0.5, this.nFrames, this.canvas.clientWidth)}px`;
  }
}

export function cssColour(rgb) { return `rgb(${rgb.map((part) => Math.round(255 * part)).join(' ')})`; }
