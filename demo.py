"""Reconstruct everybody in a video: ``python demo.py --vid_file my.mp4``; see lib/commands/demo.py."""

from lib.commands import run

if __name__ == "__main__":
    run("demo")
