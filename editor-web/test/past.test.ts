// The past of a text: the scrubber's arithmetic, rows, and what a step of playback does.
import { describe, expect, it } from "vitest";

import { applied, type Burst, type Mark, pauseBefore, rowsOf, Track } from "../src/model/past";

const burst = (first: number, last: number, edits: number): Burst => ({ first, last, edits, started_at: first, ended_at: last, authors: [] });
const mark = (position: number, name = ""): Mark => ({ kind: name === "" ? "automatic" : "version", position, at: position, name, version_id: null });

describe("the scrubber", () => {
  const track = new Track([burst(100, 190, 10), burst(50, 50, 1), burst(10, 14, 5)]);

  it("counts every edit, and begins before the first", () => {
    expect(track.length).toBe(16);
    expect(track.positionOf(0)).toBe(9);
    expect(track.positionOf(1)).toBe(10);
    expect(track.positionOf(5)).toBe(14);
    expect(track.positionOf(6)).toBe(50);
    expect(track.positionOf(7)).toBe(100);
    expect(track.positionOf(16)).toBe(190);
  });

  it("goes forth and back without a step lost", () => {
    for (let edit = 0; edit <= track.length; edit += 1) expect(track.editOf(track.positionOf(edit))).toBe(edit);
  });

  it("never goes back while the position grows", () => {
    let before = 0;
    for (let position = 0; position < 220; position += 1) {
      expect(track.editOf(position)).toBeGreaterThanOrEqual(before);
      before = track.editOf(position);
    }
    expect(before).toBe(track.length);
  });

  it("has nothing to scrub in an empty text", () => {
    expect(new Track([]).length).toBe(0);
    expect(new Track([]).positionOf(0)).toBe(0);
  });
});

describe("rows", () => {
  it("puts a mark above the burst that it ends, newest first, and loses none", () => {
    const rows = rowsOf([burst(100, 190, 10), burst(10, 14, 5)], [mark(200, "after"), mark(190, "at"), mark(14), mark(3, "before")]);
    expect(rows.map((row) => (row.kind === "burst" ? row.burst.first : row.mark.position))).toEqual([200, 190, 100, 14, 10, 3]);
  });
});

describe("a step", () => {
  it("applies its changes one after the other, in UTF-16 units", () => {
    const done = applied("a😀b", { changes: [[1, 2, "xy"], [0, 1, ""]] });
    expect(done).toEqual({ text: "xyb", from: 0, to: 0 });
  });

  it("without a change shows nothing fresh", () => {
    expect(applied("same", { changes: [] })).toEqual({ text: "same", from: -1, to: -1 });
  });
});

describe("playback", () => {
  it("waits as long as the writer did, shortens pauses, and never goes backwards in time", () => {
    expect(pauseBefore(1_000, 1_100, 1)).toBe(100);
    expect(pauseBefore(1_000, 1_100, 4)).toBe(25);
    expect(pauseBefore(1_000, 90_000_000, 1)).toBe(1_200);
    expect(pauseBefore(2_000, 1_000, 1)).toBe(0);
  });
});
