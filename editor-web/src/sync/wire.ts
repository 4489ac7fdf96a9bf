// The Hocuspocus dialect as bytes: every message is `varString document, varUint type, body`. No state, no I/O.
import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";

const SYNC = 0;
const AWARENESS = 1;
const AUTH = 2;
const QUERY_AWARENESS = 3;
const SYNC_REPLY = 4;
const STATELESS = 5;
const CLOSE = 7;
const SYNC_STATUS = 8;
const PING = 9;
const PONG = 10;

const STEP1 = 0;
const STEP2 = 1;
const UPDATE = 2;

const AUTH_TOKEN = 0;
const AUTH_DENIED = 1;

export type Scope = "read-write" | "readonly";

/** What the server may say; `document` is empty for a ping of the whole socket. */
export type Message =
  | { kind: "step1"; vector: Uint8Array }
  | { kind: "update"; update: Uint8Array; last: boolean }
  | { kind: "awareness"; update: Uint8Array }
  | { kind: "query-awareness" }
  | { kind: "authenticated"; scope: Scope }
  | { kind: "denied"; reason: string }
  | { kind: "stored"; ok: boolean }
  | { kind: "stateless"; text: string }
  | { kind: "close"; reason: string }
  | { kind: "ping" }
  | { kind: "pong" }
  | { kind: "unknown"; type: number };

export interface Frame {
  document: string;
  message: Message;
}

/** Reads one frame; throws when it is cut short. */
export function readFrame(data: Uint8Array): Frame {
  const decoder = decoding.createDecoder(data);
  const name = decoding.readVarString(decoder);
  const end = name.indexOf("\0"); // newer servers may add a provider's session after a NUL
  const document = end < 0 ? name : name.slice(0, end);
  return { document, message: readMessage(decoder) };
}

function readMessage(decoder: decoding.Decoder): Message {
  const type = decoding.readVarUint(decoder);
  switch (type) {
    case SYNC:
    case SYNC_REPLY: {
      const step = decoding.readVarUint(decoder);
      const body = decoding.readVarUint8Array(decoder);
      if (step === STEP1) return { kind: "step1", vector: body };
      return { kind: "update", update: body, last: step === STEP2 };
    }
    case AWARENESS:
      return { kind: "awareness", update: decoding.readVarUint8Array(decoder) };
    case AUTH: {
      const denied = decoding.readVarUint(decoder) === AUTH_DENIED;
      const text = decoding.hasContent(decoder) ? decoding.readVarString(decoder) : "";
      if (denied) return { kind: "denied", reason: text };
      return { kind: "authenticated", scope: text === "readonly" ? "readonly" : "read-write" };
    }
    case QUERY_AWARENESS:
      return { kind: "query-awareness" };
    case STATELESS:
      return { kind: "stateless", text: decoding.readVarString(decoder) };
    case CLOSE:
      return { kind: "close", reason: decoding.hasContent(decoder) ? decoding.readVarString(decoder) : "" };
    case SYNC_STATUS:
      return { kind: "stored", ok: decoding.readVarUint(decoder) === 1 };
    case PING:
      return { kind: "ping" };
    case PONG:
      return { kind: "pong" };
    default:
      return { kind: "unknown", type };
  }
}

function frame(document: string, type: number, body?: (encoder: encoding.Encoder) => void): Uint8Array {
  const encoder = encoding.createEncoder();
  encoding.writeVarString(encoder, document);
  encoding.writeVarUint(encoder, type);
  body?.(encoder);
  return encoding.toUint8Array(encoder);
}

function syncFrame(document: string, step: number, bytes: Uint8Array): Uint8Array {
  return frame(document, SYNC, (encoder) => {
    encoding.writeVarUint(encoder, step);
    encoding.writeVarUint8Array(encoder, bytes);
  });
}

export const step1Frame = (document: string, vector: Uint8Array): Uint8Array => syncFrame(document, STEP1, vector);
export const step2Frame = (document: string, update: Uint8Array): Uint8Array => syncFrame(document, STEP2, update);
export const updateFrame = (document: string, update: Uint8Array): Uint8Array => syncFrame(document, UPDATE, update);
export const pingFrame = (document: string): Uint8Array => frame(document, PING);
export const pongFrame = (document: string): Uint8Array => frame(document, PONG);

export function awarenessFrame(document: string, update: Uint8Array): Uint8Array {
  return frame(document, AWARENESS, (encoder) => encoding.writeVarUint8Array(encoder, update));
}

export function tokenFrame(document: string, token: string): Uint8Array {
  return frame(document, AUTH, (encoder) => {
    encoding.writeVarUint(encoder, AUTH_TOKEN);
    encoding.writeVarString(encoder, token);
  });
}

export function closeFrame(document: string, reason: string): Uint8Array {
  return frame(document, CLOSE, (encoder) => encoding.writeVarString(encoder, reason));
}
