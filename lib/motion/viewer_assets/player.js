/**
 * Shows the video by frame number. While it plays, the video is the clock; where the browser cannot play it,
 * a timer is.
 */
export class Player {
  frame = 0;
  playing = false;
  broken = false;
  #wanted = 0;
  #position = 0; // of the timer, in frames
  #landing = null;

  /**
   * @param video its frame i is shown from i / videoFps seconds on.
   * @param onFrame called with each new frame number.
   * @param onPicture called when another picture is on the screen.
   * @param onState called when playing begins or ends, or the video turns out to be broken.
   */
  constructor(video, { fps, videoFps, nFrames }, { onFrame, onPicture, onState }) {
    Object.assign(this, { video, fps, videoFps, nFrames, onFrame, onPicture, onState });
    this.ready = new Promise((done) => {
      video.addEventListener('loadeddata', done, { once: true });
      video.addEventListener('error', () => {
        this.broken = true;
        this.pause();
        this.onState();
        done();
      }, { once: true });
    });
    video.addEventListener('ended', () => {
      this.#show(nFrames - 1); // a busy browser may leave out the last pictures
      this.pause();
    });
    this.loop = true;
    this.speed = 1;
    this.#watch();
  }

  set loop(loop) { this.video.loop = loop; }
  get loop() { return this.video.loop; }

  set speed(speed) {
    // playbackRate counts from the video's own rate, which differs from that of very fast and slow films, and
    // has limits.
    this.rate = speed;
    const rate = Math.min(Math.max((speed * this.fps) / this.videoFps, 0.0625), 16);
    this.video.defaultPlaybackRate = this.video.playbackRate = rate;
  }

  /** Go to a frame. Resolves when its picture is there. */
  seek(frame) {
    frame = Math.min(Math.max(Math.round(frame), 0), this.nFrames - 1);
    this.#wanted = this.#position = frame;
    this.#show(frame);
    this.#landing ??= this.#land().finally(() => { this.#landing = null; });
    return this.#landing;
  }

  async play() {
    if (this.playing) return;
    this.playing = true;
    this.onState();
    if (this.frame === this.nFrames - 1) this.seek(0);
    await (this.#landing ?? this.ready);
    if (!this.playing) return;
    if (this.broken) this.#tick(performance.now());
    else await this.video.play().catch(() => this.pause());
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    this.video.pause();
    this.onState();
    this.seek(this.frame); // the video may be a picture further than the scene
  }

  #show(frame) {
    if (frame === this.frame) return;
    this.frame = frame;
    this.onFrame(frame);
  }

  /** Seek until the picture is that of the last frame asked for. */
  async #land() {
    await this.ready;
    for (let at = -1; at !== this.#wanted && !this.broken;) {
      at = this.#wanted;
      await new Promise((done) => {
        this.video.addEventListener('seeked', done, { once: true });
        this.video.addEventListener('error', done, { once: true });
        this.video.currentTime = (at + 0.5) / this.videoFps;
      });
    }
    this.onPicture();
  }

  #watch() {
    const { video } = this;
    const seen = (time) => {
      if (this.playing && !this.#landing && !video.seeking) {
        this.#show(Math.min(Math.floor(time * this.videoFps + 0.25), this.nFrames - 1));
      }
      this.onPicture();
    };
    if (video.requestVideoFrameCallback) {
      const next = (_, { mediaTime }) => {
        seen(mediaTime);
        video.requestVideoFrameCallback(next);
      };
      video.requestVideoFrameCallback(next);
    } else {
      const next = () => {
        if (!video.paused) seen(video.currentTime);
        requestAnimationFrame(next);
      };
      next();
    }
  }

  /** Go on by the time since `last`. */
  #tick(last) {
    requestAnimationFrame((now) => {
      if (!this.playing) return;
      this.#position += (Math.max(now - last, 0) / 1000) * this.fps * this.rate;
      if (this.#position >= this.nFrames) {
        if (!this.loop) return this.pause();
        this.#position = 0;
      }
      this.#show(Math.floor(this.#position));
      this.#tick(now);
    });
  }
}
