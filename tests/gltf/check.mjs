// Reads exported scenes with Khronos' validator and with three.js, and compares what three.js shows in every
// frame with the truth beside them. Run by `make test-gltf`: node check.mjs FOLDER, which
// `python -m tests.export_tools FOLDER` has written. Exit status 1 on any complaint of the validator, or if
// anything is further off than 1 mm.
import fs from "node:fs";
import path from "node:path";
import { AnimationMixer, LoopOnce, REVISION, Vector3 } from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import validator from "gltf-validator";

const TOLERANCE = 1e-3; // metres
globalThis.self ??= globalThis; // the loader is written for browsers

async function check(folder) {
  const truth = JSON.parse(fs.readFileSync(path.join(folder, "truth.json")));
  const bytes = new Uint8Array(fs.readFileSync(path.join(folder, "scene.glb")));
  const report = await validator.validateBytes(bytes);
  for (const message of report.issues.messages) console.log(`${folder}: ${message.code} ${message.pointer}`);

  const { scene, animations } = await new GLTFLoader().parseAsync(bytes.buffer, "");
  const mixer = new AnimationMixer(scene);
  const action = mixer.clipAction(animations[0]).setLoop(LoopOnce);
  action.clampWhenFinished = true;
  action.play();
  const worst = { joints: 0, vertices: 0, unseen: 0 };
  const note = (name, point, expected) => {
    worst[name] = Math.max(worst[name], point.distanceTo(expected));
  };
  for (let frame = 0; frame < truth.n_frames; frame++) {
    mixer.setTime(Math.fround(frame / truth.fps));
    scene.updateMatrixWorld(true);
    for (const person of truth.people) {
      const mesh = scene.getObjectByName(`person_${person.id}`);
      const row = person.frames.indexOf(frame);
      const hips = new Vector3().setFromMatrixPosition(mesh.skeleton.bones[0].matrixWorld);
      mesh.skeleton.bones.forEach((bone, joint) => {
        if (row < 0) return;
        const expected = new Vector3(...person.joints[row][joint]);
        note("joints", new Vector3().setFromMatrixPosition(bone.matrixWorld), expected);
      });
      for (let vertex = 0; vertex < mesh.geometry.attributes.position.count; vertex += truth.every) {
        const point = mesh.getVertexPosition(vertex, new Vector3()).applyMatrix4(mesh.matrixWorld);
        if (row < 0) note("unseen", point, hips);
        else note("vertices", point, new Vector3(...person.vertices[row][vertex / truth.every]));
      }
    }
  }
  for (const [name, value] of Object.entries(worst))
    console.log(`${path.basename(folder)}: scene.glb ${name} ${(1000 * value).toFixed(4)} mm`);
  return report.issues.messages.length === 0 && Math.max(...Object.values(worst)) <= TOLERANCE;
}

const root = process.argv[2];
const folders = fs.readdirSync(root).map((name) => path.join(root, name));
console.log(`three.js ${REVISION}, largest distances`);
let good = folders.length > 0;
for (const folder of folders.filter((name) => fs.existsSync(path.join(name, "truth.json"))))
  good = (await check(folder)) && good;
process.exit(good ? 0 : 1);
