import { greet } from "./greetings.mjs";

console.log(greet("world"));
