/** What the page carries: elements of text, with numbers and files in base64. */

const KINDS = { u1: Uint8Array, u2: Uint16Array, i2: Int16Array, f4: Float32Array };

export function bytes(base64) {
  const text = atob(base64);
  const values = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) values[i] = text.charCodeAt(i);
  return values;
}

/** The text of an element, which is taken out of the page to free its memory. */
export function takeText(id) {
  const element = document.getElementById(id);
  element.remove();
  return element.textContent;
}

/** The scene, its arrays as typed arrays. */
export function readScene(text) {
  return JSON.parse(text, (_, value) =>
    value?.type in KINDS ? new KINDS[value.type](bytes(value.data).buffer) : value);
}

/** The row of a frame in a person's arrays, or -1 where the person is not in the video. */
export function rowOf(person, frame) {
  const row = frame - person.start;
  return row >= 0 && row < person.translations.length / 3 ? row : -1;
}
