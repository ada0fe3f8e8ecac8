/** The scene in 3D: people on a floor, and the camera that filmed them. World: metres, y up, floor at 0. */

import * as THREE from 'three';
import { OrbitControls } from 'orbit-controls';
import { rowOf } from 'data';

export const CONTACT_COLOUR = '#46f0a4';
const BACKGROUND = '#12151b';
const FIELD_OF_VIEW = 40;
const SKELETON = 1; // layer of cameras
const MESH = 0;

/** Bones of one person, with a skin and a drawn skeleton on them. */
class Person {
  constructor(data, body) {
    this.data = data;
    this.on = true;
    this.group = new THREE.Group();
    this.colour = new THREE.Color().setRGB(...data.colour, THREE.SRGBColorSpace);
    this.bones = data.rest.map(() => new THREE.Bone());
    body.parents.forEach((parent, joint) => {
      this.bones[joint].position.set(...data.rest[joint]);
      if (parent < 0) return this.group.add(this.bones[joint]);
      this.bones[joint].position.sub(new THREE.Vector3(...data.rest[parent]));
      this.bones[parent].add(this.bones[joint]);
    });
    this.group.updateMatrixWorld(true);
    this.#addSkin(body);
    this.#addSkeleton(body);
    this.#addFeet(body);
    this.path = this.#path();
    this.group.add(this.path);
  }

  #addSkin(body) {
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute('position', new THREE.BufferAttribute(this.data.vertices, 3));
    geometry.setAttribute('skinIndex', body.skinIndex);
    geometry.setAttribute('skinWeight', body.skinWeight);
    geometry.setIndex(body.index);
    geometry.computeVertexNormals();
    this.skin = new THREE.SkinnedMesh(
      geometry, new THREE.MeshStandardMaterial({ color: this.colour, roughness: 0.62 }));
    this.skin.bind(new THREE.Skeleton(this.bones));
    this.skin.frustumCulled = false; // its bounds are those of the rest pose
    this.skin.castShadow = this.skin.receiveShadow = true;
    this.skin.layers.set(MESH);
    this.group.add(this.skin);
  }

  #addSkeleton(body) {
    const material = new THREE.MeshStandardMaterial({ color: this.colour, roughness: 0.5 });
    const add = (bone, geometry) => {
      const part = new THREE.Mesh(geometry, material);
      part.castShadow = true;
      part.layers.set(SKELETON);
      bone.add(part);
      return part;
    };
    body.parents.forEach((parent, joint) => {
      add(this.bones[joint], new THREE.SphereGeometry(0.024, 16, 12));
      if (parent < 0) return;
      const end = this.bones[joint].position, length = end.length();
      const limb = add(this.bones[parent], new THREE.CylinderGeometry(0.008, 0.015, length, 10));
      limb.position.copy(end).multiplyScalar(0.5);
      limb.quaternion.setFromUnitVectors(new THREE.Vector3(0, 1, 0), end.clone().divideScalar(length));
    });
  }

  #addFeet(body) {
    this.feet = new THREE.Group();
    this.group.add(this.feet);
    this.soles = this.data.soles.map((sole, i) => {
      const joint = body.soleJoints[i], bone = this.bones[joint];
      const at = new THREE.Object3D();
      at.position.set(...sole).sub(new THREE.Vector3(...this.data.rest[joint]));
      bone.add(at);
      const light = new THREE.Group();
      const flat = (geometry, opacity) => {
        const part = new THREE.Mesh(geometry, new THREE.MeshBasicMaterial(
          { color: CONTACT_COLOUR, transparent: true, opacity, depthWrite: false, fog: false }));
        part.rotation.x = -Math.PI / 2;
        light.add(part);
      };
      flat(new THREE.CircleGeometry(0.1, 40), 0.28);
      flat(new THREE.RingGeometry(0.085, 0.1, 40), 0.95);
      this.feet.add(light);
      return { at, light };
    });
  }

  #path() {
    const points = [];
    for (let i = 0; i < this.data.translations.length; i += 3) {
      points.push(this.data.rest[0][0] + this.data.translations[i], 0.004,
        this.data.rest[0][2] + this.data.translations[i + 2]);
    }
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute('position', new THREE.Float32BufferAttribute(points, 3));
    return new THREE.Line(
      geometry, new THREE.LineBasicMaterial({ color: this.colour, transparent: true, opacity: 0.55 }));
  }

  /** Take the pose of a frame of the video. */
  pose(frame) {
    const row = rowOf(this.data, frame);
    this.present = row >= 0;
    this.group.visible = this.present && this.on;
    if (!this.present) return;
    const { rotations, translations, contacts, rest } = this.data;
    this.bones.forEach((bone, joint) => {
      bone.quaternion.fromArray(rotations, 4 * (this.bones.length * row + joint)).normalize();
    });
    this.bones[0].position.fromArray(translations, 3 * row).add(new THREE.Vector3(...rest[0]));
    this.group.updateMatrixWorld(true);
    this.soles.forEach(({ at, light }, i) => {
      light.visible = contacts[4 * row + i] > 0;
      at.getWorldPosition(light.position).setY(0.006);
    });
  }

  joint(index) { return this.bones[index].getWorldPosition(new THREE.Vector3()); }
}

export class Stage {
  fromCamera = false;
  following = null;
  style = 'mesh';

  /** `onView` is called when the view from the video camera begins or ends. */
  constructor(canvas, data, video, onView) {
    Object.assign(this, { canvas, data, onView });
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true });
    this.renderer.shadowMap.enabled = true;
    this.renderer.shadowMap.type = THREE.PCFShadowMap;
    this.scene = new THREE.Scene();
    this.scene.background = new THREE.Color(BACKGROUND);
    this.view = new THREE.PerspectiveCamera(FIELD_OF_VIEW, 1, 0.05, 500);

    const { body } = data;
    body.index = new THREE.BufferAttribute(body.faces, 1);
    body.skinIndex = new THREE.BufferAttribute(body.skinJoints, 4);
    body.skinWeight = new THREE.BufferAttribute(body.skinWeights, 4);
    this.people = data.people.map((person) => new Person(person, body));
    this.scene.add(...this.people.map((person) => person.group));
    this.#measure();
    this.#addLights();
    this.#addFloor();
    this.#addVideoCamera(video);

    canvas.addEventListener('pointerdown', () => this.viewFromCamera(false)); // a drag leaves that view
    canvas.addEventListener('wheel', () => this.viewFromCamera(false), { passive: true });
    this.controls = new OrbitControls(this.view, canvas);
    this.controls.maxPolarAngle = 0.52 * Math.PI;
    this.controls.minDistance = 0.4;
    this.controls.maxDistance = 200;
    this.controls.addEventListener('change', () => this.invalidate());
    this.setStyle('mesh');
    this.show(0);
    this.resetView();
    new ResizeObserver(() => this.#resize()).observe(canvas.parentElement);
    this.#resize();
  }

  /** Where people walk: a box around all of the scene. */
  #measure() {
    const box = new THREE.Box3();
    for (const { data: { rest, translations } } of this.people) {
      const pelvis = new THREE.Vector3();
      for (let i = 0; i < translations.length; i += 3) {
        box.expandByPoint(pelvis.fromArray(translations, i).add(new THREE.Vector3(...rest[0])));
      }
    }
    box.expandByPoint(box.isEmpty() ? new THREE.Vector3() : box.min.clone().setY(0));
    box.max.y += 0.9; // a head
    this.centre = box.getCenter(new THREE.Vector3());
    this.reach = Math.max(box.getSize(new THREE.Vector3()).length() / 2, 1.2);
  }

  #addLights() {
    this.scene.add(new THREE.HemisphereLight('#dfe8ff', '#4a4642', 1.5));
    this.sun = new THREE.DirectionalLight('#fff4e6', 2.1);
    this.sun.castShadow = true;
    this.sun.shadow.mapSize.set(2048, 2048);
    this.sun.shadow.normalBias = 0.02;
    this.sun.shadow.radius = 3;
    const rim = new THREE.DirectionalLight('#a9c4ff', 0.7);
    rim.position.set(-3, 2.5, -4);
    this.scene.add(this.sun, this.sun.target, rim);
  }

  #addFloor() {
    const size = Math.max(12, 4 * this.reach);
    const grid = this.grid = new THREE.Mesh(
      new THREE.PlaneGeometry(2 * size, 2 * size),
      new THREE.ShaderMaterial({
        transparent: true,
        depthWrite: false,
        side: THREE.DoubleSide,
        uniforms: {
          centre: { value: new THREE.Vector2(this.centre.x, this.centre.z) },
          size: { value: size },
          fill: { value: 0 },
        },
        vertexShader: `
          varying vec2 at;
          void main() {
            vec4 world = modelMatrix * vec4(position, 1.0);
            at = world.xz;
            gl_Position = projectionMatrix * viewMatrix * world;
          }`,
        fragmentShader: `
          varying vec2 at;
          uniform vec2 centre;
          uniform float size, fill;
          float lines(float step, float width) {
            vec2 place = at / step, blur = fwidth(place);
            vec2 line = smoothstep(blur * (width + 1.0), blur * width, abs(fract(place - 0.5) - 0.5));
            // Lines closer than pixels become their mean instead of a moire.
            line = mix(line, vec2(0.0), clamp(blur * 2.5 - 0.5, 0.0, 1.0));
            return max(line.x, line.y);
          }
          void main() {
            float fade = 1.0 - smoothstep(0.25, 1.0, distance(at, centre) / size);
            float line = max(0.28 * lines(1.0, 0.3), 0.5 * lines(5.0, 0.5));
            gl_FragColor = vec4(mix(vec3(0.24, 0.29, 0.38), vec3(0.66, 0.75, 0.90), line),
              fade * max(line, fill));
          }`,
      }));
    const shadow = new THREE.Mesh(
      new THREE.PlaneGeometry(2 * size, 2 * size), new THREE.ShadowMaterial({ opacity: 0.42 }));
    shadow.receiveShadow = true;
    shadow.material.depthWrite = false;
    this.floor = new THREE.Group();
    for (const part of [grid, shadow]) {
      part.rotation.x = -Math.PI / 2;
      part.position.set(this.centre.x, 0, this.centre.z);
      this.floor.add(part);
    }
    shadow.position.y = 0.002;
    grid.renderOrder = -2;
    shadow.renderOrder = -1;
    this.scene.add(this.floor);
  }

  /** The camera as a pyramid whose base is the picture that it sees. */
  #addVideoCamera(video) {
    const { width, height, focal, rotation, offset } = this.data.camera;
    const [x, y] = [width / 2 / focal, height / 2 / focal];
    this.film = new THREE.Group();
    // Camera axes (x right, y down, z away) to the world.
    this.film.matrix.set(
      ...rotation[0], offset[0], ...rotation[1], offset[1], ...rotation[2], offset[2], 0, 0, 0, 1);
    this.film.matrixAutoUpdate = false;
    const corners = [[-x, -y], [x, -y], [x, y], [-x, y]];
    const lines = corners.flatMap(([a, b], i) => {
      const [c, d] = corners[(i + 1) % 4];
      return [0, 0, 0, a, b, 1, a, b, 1, c, d, 1];
    });
    lines.push(-0.25 * x, -1.06 * y, 1, 0, -1.3 * y, 1, 0, -1.3 * y, 1, 0.25 * x, -1.06 * y, 1); // this side up
    const edges = new THREE.BufferGeometry();
    edges.setAttribute('position', new THREE.Float32BufferAttribute(lines, 3));
    this.frustum = new THREE.LineSegments(edges, new THREE.LineBasicMaterial({ color: '#8fa3c4' }));
    this.texture = new THREE.VideoTexture(video);
    this.texture.colorSpace = THREE.SRGBColorSpace;
    const base = new THREE.BufferGeometry();
    base.setAttribute('position', new THREE.Float32BufferAttribute(corners.flatMap(([a, b]) => [a, b, 1]), 3));
    base.setAttribute('uv', new THREE.Float32BufferAttribute([0, 1, 1, 1, 1, 0, 0, 0], 2));
    base.setIndex([0, 1, 2, 0, 2, 3]);
    this.picture = new THREE.Mesh(base, new THREE.MeshBasicMaterial(
      { map: this.texture, side: THREE.DoubleSide, toneMapped: false, depthWrite: false }));
    this.film.add(this.frustum, this.picture);
    this.scene.add(this.film);
    this.cameraOn = false;
    this.#placeFilm();
  }

  /** Small in the scene; behind everything when it is what one looks through. */
  #placeFilm() {
    const away = new THREE.Vector3(...this.data.camera.offset).distanceTo(this.centre);
    this.film.children.forEach((part) => part.scale.setScalar(this.fromCamera ? 1 : Math.max(0.18 * away, 0.15)));
    this.picture.material.depthTest = !this.fromCamera;
    this.picture.renderOrder = this.fromCamera ? -10 : 0;
    this.film.visible = this.cameraOn || this.fromCamera;
    this.frustum.visible = !this.fromCamera;
    this.grid.material.uniforms.fill.value = this.fromCamera ? 0 : 0.5;
    this.film.updateMatrixWorld(true);
  }

  show(frame) {
    const before = this.following?.present && this.following.joint(0);
    for (const person of this.people) person.pose(frame);
    if (before && this.following.present && !this.fromCamera) {
      const step = this.following.joint(0).sub(before).setY(0);
      this.view.position.add(step);
      this.controls.target.add(step);
    }
    this.#aimSun();
    this.invalidate();
  }

  /** The shadow map covers the people of the frame only, so that shadows are sharp on a long way. */
  #aimSun() {
    const box = new THREE.Box3();
    for (const person of this.people) if (person.group.visible) box.expandByPoint(person.joint(0));
    if (box.isEmpty()) return;
    const { target, shadow } = this.sun;
    box.getCenter(target.position);
    const reach = box.getSize(new THREE.Vector3()).length() / 2 + 2.2;
    this.sun.position.copy(target.position).add(new THREE.Vector3(1.6, 4.2, 2.4).setLength(2 * reach));
    target.updateMatrixWorld();
    Object.assign(shadow.camera, { left: -reach, right: reach, top: reach, bottom: -reach, near: 0.1, far: 4 * reach });
    shadow.camera.updateProjectionMatrix();
  }

  setPerson(index, on) {
    this.people[index].on = on;
    this.people[index].group.visible = on && this.people[index].present;
    this.#aimSun();
    this.invalidate();
  }

  /** mesh, skeleton, or both: a skin of glass. */
  setStyle(style) {
    this.style = style;
    this.view.layers.disableAll();
    if (style !== 'skeleton') this.view.layers.enable(MESH);
    if (style !== 'mesh') this.view.layers.enable(SKELETON);
    for (const { skin } of this.people) {
      skin.material.transparent = style === 'both';
      skin.material.opacity = style === 'both' ? 0.4 : 1;
      skin.material.needsUpdate = true;
    }
    this.invalidate();
  }

  setLayer(layer, on) {
    if (layer === 'floor') this.floor.visible = on;
    if (layer === 'contacts') for (const { feet } of this.people) feet.visible = on;
    if (layer === 'paths') for (const { path } of this.people) path.visible = on;
    if (layer === 'camera') {
      this.cameraOn = on;
      this.#placeFilm();
      if (on) this.#stepBack();
    }
    this.invalidate();
  }

  /** Go back until the video camera is in sight, too. */
  #stepBack() {
    this.viewFromCamera(false);
    this.view.updateMatrixWorld();
    const camera = new THREE.Vector3(...this.data.camera.offset);
    const { x, y, z } = camera.clone().project(this.view);
    if (Math.max(Math.abs(x), Math.abs(y), Math.abs(z)) < 0.9) return;
    const away = this.view.position.clone().sub(this.controls.target).normalize();
    const reach = camera.distanceTo(this.centre) / 2 + 0.5 * this.reach;
    this.controls.target.copy(camera).add(this.centre).multiplyScalar(0.5);
    this.view.position.copy(this.controls.target).addScaledVector(away, (0.8 * reach) / Math.sin(this.#halfAngle()));
    this.controls.update();
  }

  /** Of the view, where it is narrower. */
  #halfAngle() {
    return Math.atan(Math.tan(THREE.MathUtils.degToRad(FIELD_OF_VIEW) / 2) * Math.min(1, this.view.aspect));
  }

  follow(index) {
    this.following = index === null ? null : this.people[index];
    if (!this.following?.present) return;
    this.viewFromCamera(false);
    const step = this.following.joint(0).sub(this.controls.target);
    this.view.position.add(step);
    this.controls.target.add(step);
    this.controls.update();
    this.invalidate();
  }

  /** From beside the video camera, a little above it, with the whole way in sight. */
  resetView() {
    this.viewFromCamera(false);
    const away = new THREE.Vector3(...this.data.camera.rotation.map((row) => -row[2])).setY(0);
    if (away.lengthSq() < 1e-6) away.set(0, 0, 1);
    away.normalize().applyAxisAngle(new THREE.Vector3(0, 1, 0), 0.5).setY(0.42).normalize();
    this.controls.target.copy(this.centre);
    this.view.position.copy(this.centre).addScaledVector(away, (0.8 * this.reach) / Math.sin(this.#halfAngle()));
    this.controls.update();
    this.invalidate();
  }

  /** Stand where the video camera stands, and see people over the picture. */
  viewFromCamera(on) {
    if (on === this.fromCamera) return;
    this.fromCamera = on;
    this.controls.enabled = !on;
    this.#placeFilm();
    this.#aim();
    if (!on) {
      const far = this.view.position.distanceTo(this.centre);
      this.controls.target.copy(this.view.position)
        .add(this.view.getWorldDirection(new THREE.Vector3()).multiplyScalar(far));
      this.controls.update();
    }
    this.onView();
    this.invalidate();
  }

  #aim() {
    this.view.fov = FIELD_OF_VIEW;
    if (this.fromCamera) {
      const { width, height, focal } = this.data.camera;
      this.view.fov = THREE.MathUtils.radToDeg(
        2 * Math.atan(Math.max(height, width / this.view.aspect) / 2 / focal));
      this.film.matrix.decompose(this.view.position, this.view.quaternion, new THREE.Vector3());
      this.view.rotateX(Math.PI); // a camera of three.js has y up and looks along -z
    }
    this.view.updateProjectionMatrix();
  }

  #resize() {
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    if (!clientWidth || !clientHeight) return;
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    this.renderer.setSize(clientWidth, clientHeight, false);
    this.view.aspect = clientWidth / clientHeight;
    this.#aim();
    this.#draw(); // at once: a resized canvas is empty
  }

  /** A joint of a person where it is drawn, in pixels of the canvas from its upper left corner. */
  project(person, joint) {
    this.view.updateMatrixWorld();
    const { x, y } = this.people[person].joint(joint).project(this.view);
    return [((x + 1) / 2) * this.canvas.clientWidth, ((1 - y) / 2) * this.canvas.clientHeight];
  }

  /** Draw before the next repaint. */
  invalidate() {
    this.drawing ??= new Promise((done) => requestAnimationFrame(() => {
      this.drawing = null;
      this.#draw();
      done();
    }));
  }

  #draw() { this.renderer.render(this.scene, this.view); }
}
