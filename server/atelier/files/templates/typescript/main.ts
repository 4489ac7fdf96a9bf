import { greet, type Person } from "./greetings.ts";

const world: Person = { name: "world" };
console.log(greet(world));
