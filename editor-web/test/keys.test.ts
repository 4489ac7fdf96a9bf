import { describe, expect, test } from "vitest";

import { bindings, RESERVED } from "../src/editor/keys";
import { colorOf, initialsOf } from "../src/model/palette";

describe("keys", () => {
  test("leave those of the shell and of the browser alone", () => {
    for (const binding of bindings) {
      for (const key of [binding.key, binding.mac, binding.win, binding.linux]) {
        if (key !== undefined) expect(RESERVED.has(key), key).toBe(false);
      }
    }
  });

  test("indent with Tab", () => {
    expect(bindings.some((binding) => binding.key === "Tab" && binding.shift !== undefined)).toBe(true);
  });
});

describe("people", () => {
  test("have the colour that the server gives them", () => {
    // The check value of CRC-32: crc32("123456789") is 0xcbf43926, which is 2 modulo 12.
    expect(colorOf("123456789")).toBe("#966a00");
  });

  test.each([
    ["Ada Lovelace", "AL"],
    ["ada", "A"],
    ["  Jean  de la Fontaine ", "JF"],
    ["\u{1F600} smile", "\u{1F600}S"],
    ["", "?"],
  ])("%j has initials %j", (name, initials) => {
    expect(initialsOf(name)).toBe(initials);
  });
});
