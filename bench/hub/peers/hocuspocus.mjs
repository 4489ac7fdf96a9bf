// Hocuspocus as its documentation starts it, with its SQLite extension. usage: hocuspocus.mjs PORT FOLDER
import { SQLite } from "@hocuspocus/extension-sqlite";
import { Server } from "@hocuspocus/server";

const [port, folder] = process.argv.slice(2);
const server = new Server({ port: Number(port), address: "127.0.0.1", quiet: true, extensions: [new SQLite({ database: `${folder}/hocuspocus.db` })] });
await server.listen();
console.log("ready");
