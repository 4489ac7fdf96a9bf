// Real Yjs makes random histories and judges what others made of them; lines of JSON: {id, do, …} in, {id, …} out.
import { createInterface } from "node:readline";
import * as Y from "yjs";

// A small generator with a seed (mulberry32), so that a history is its number.
const generator = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};
const LETTERS = ["a", "b", " ", "\n", "é", "漢", "😀", "👩‍🚀", "\u0301", "ﷺ"];
const encode = (bytes) => Buffer.from(bytes).toString("base64");
const decode = (text) => new Uint8Array(Buffer.from(text, "base64"));

// Never inside a character: no editor does that, and Yjs and yrs replace the halves of one differently.
const between = (text, at) => {
  const around = text.toString().slice(at - 1, at + 1);
  return at > 0 && /^[\ud800-\udbff][\udc00-\udfff]/.test(around) ? at - 1 : at;
};

const history = (seed) => {
  const random = generator(seed);
  const below = (n) => Math.floor(random() * n);
  const docs = Array.from({ length: 2 + below(3) }, () => new Y.Doc());
  docs.forEach((doc, n) => (doc.clientID = 1 + below(2 ** 31) * 2 + n));
  const sent = [];
  const heard = docs.map(() => 0);
  docs.forEach((doc, n) => doc.on("update", (update, origin) => origin !== "heard" && sent.push(update)));
  for (let step = 0; step < 20 + below(60); step += 1) {
    const n = below(docs.length);
    const doc = docs[n];
    const text = doc.getText("content");
    const what = random();
    if (what < 0.3) {
      for (; heard[n] < sent.length; heard[n] += 1) Y.applyUpdate(doc, sent[heard[n]], "heard");
    } else if (what < 0.5 && text.length > 0) {
      const at = between(text, below(text.length));
      const end = between(text, Math.min(at + 1 + below(6), text.length));
      if (end > at) text.delete(at, end - at);
    } else if (what < 0.55) {
      doc.getMap("files").set("abc"[below(3)], new Y.Map([["path", LETTERS[below(LETTERS.length)]]]));
    } else if (what < 0.6) {
      doc.getArray("list").insert(0, [below(100), { deep: [LETTERS[below(LETTERS.length)], null, 1.5] }]);
    } else {
      const words = Array.from({ length: 1 + below(random() < 0.1 ? 200 : 3) }, () => LETTERS[below(LETTERS.length)]);
      text.insert(between(text, below(text.length + 1)), words.join(""));
    }
  }
  // What arrives: in any order, some of it twice, some of it much later.
  const missing = random() < 0.5 ? sent.filter(() => random() < 0.1) : [];
  const there = sent.filter((update) => !missing.includes(update));
  const arrived = there.flatMap((update) => (random() < 0.05 ? [update, update] : [update]));
  if (random() < 0.4) arrived.sort(() => random() - 0.5);
  return { arrived: arrived.map(encode), missing: missing.map(encode), ...judged(arrived, missing) };
};

const text = (doc) => {
  const files = Object.entries(doc.getMap("files").toJSON()).sort(([a], [b]) => a.localeCompare(b));
  return JSON.stringify([doc.getText("content").toString(), files, doc.getArray("list").toJSON()]);
};

// What Yjs makes of updates, before and after the missing ones have come.
const judged = (updates, missing) => {
  const doc = new Y.Doc();
  for (const update of updates) Y.applyUpdate(doc, update);
  const vector = encode(Y.encodeStateVector(doc));
  const before = text(doc);
  const pending = doc.store.pendingStructs !== null;
  // All at once: one after the other, Yjs now and then does not look again at what waits.
  const whole = new Y.Doc();
  if (updates.length + missing.length) Y.applyUpdate(whole, Y.mergeUpdates([...updates, ...missing]));
  return {
    vector,
    text: before,
    whole: encode(Y.encodeStateVector(whole)),
    final: text(whole),
    pending,
    merged: encode(updates.length ? Y.encodeStateVectorFromUpdate(Y.mergeUpdates(updates)) : [0]),
  };
};

// What a browser says that has a document open and is sent an update.
const taken = (open, update) => {
  const doc = new Y.Doc();
  Y.applyUpdate(doc, open);
  try {
    Y.applyUpdate(doc, update);
    text(doc);
    Y.encodeStateAsUpdate(doc);
    return null;
  } catch (error) {
    return String(error);
  }
};

const actions = {
  take: ({ open, updates }) => updates.map((update) => taken(decode(open), decode(update))),
  histories: ({ from, count }) => Array.from({ length: count }, (_, n) => history(from + n)),
  judge: ({ cases }) => cases.map(({ updates, missing }) => judged(updates.map(decode), missing.map(decode))),
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  let answer;
  try {
    answer = { id: command.id, ok: actions[command.do](command) };
  } catch (error) {
    answer = { id: command.id, error: String(error?.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
process.stdin.on("end", () => process.exit(0));
