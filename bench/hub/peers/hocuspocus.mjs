// Hocuspocus as its documentation starts it, with its SQLite extension. usage: hocuspocus.mjs PORT FOLDER
import { SQLite } from "@hocuspocus/extension-sqlite";
import { Server } from "@hocuspocus/server";
import Database from "better-sqlite3";

// Each statement is prepared once and kept: newer Nodes end the process when one is collected as garbage.
const { prepare } = Database.prototype;
const kept = new Map();
Database.prototype.prepare = function (sql) {
  if (!kept.has(sql)) kept.set(sql, prepare.call(this, sql));
  return kept.get(sql);
};

const [port, folder] = process.argv.slice(2);
const server = new Server({ port: Number(port), address: "127.0.0.1", quiet: true, extensions: [new SQLite({ database: `${folder}/hocuspocus.db` })] });
await server.listen();
console.log("ready");
