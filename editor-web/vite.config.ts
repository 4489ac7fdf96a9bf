import { defineConfig } from "vite";

export default defineConfig({
  base: "/static/editor/",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../server/atelier/static/editor",
    emptyOutDir: true,
    manifest: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700, // `npm run size` gates what counts: the first load, gzipped
    rolldownOptions: { input: ["src/main.tsx", "src/styles/pages.css"] },
  },
  server: { proxy: { "/api": { target: "http://127.0.0.1:8080", ws: true } } },
  test: { environment: "node", include: ["test/**/*.test.ts"] },
} as Parameters<typeof defineConfig>[0]);
