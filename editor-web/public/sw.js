// Lets a session page that was open before come up without a network: hashed files by name, pages as last seen.
// Never the API: what it says must be of now.
const FILES = "atelier-files-1";
const PAGES = "atelier-pages-1";
const MOST_PAGES = 10;

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== self.location.origin) return;
  if (url.pathname.startsWith("/static/editor/assets/")) event.respondWith(fileOf(event.request));
  else if (event.request.mode === "navigate" && url.pathname.startsWith("/s/")) event.respondWith(pageOf(event.request));
});

self.addEventListener("message", (event) => {
  // The first visit loaded its files before this worker was in charge: the page names them.
  if (Array.isArray(event.data?.keep)) event.waitUntil(caches.open(FILES).then((cache) => cache.addAll(event.data.keep)));
  if (typeof event.data?.page === "string") event.waitUntil(fetch(event.data.page).then((answer) => keepPage(event.data.page, answer)));
  if (event.data === "forget") event.waitUntil(caches.delete(PAGES));
});

async function fileOf(request) {
  const cache = await caches.open(FILES);
  const kept = await cache.match(request);
  if (kept) return kept;
  const answer = await fetch(request);
  if (answer.ok) await cache.put(request, answer.clone());
  return answer;
}

async function pageOf(request) {
  try {
    const answer = await fetch(request);
    await keepPage(request, answer.clone());
    return answer;
  } catch (error) {
    const kept = await (await caches.open(PAGES)).match(request, { ignoreVary: true });
    if (kept) return kept;
    throw error;
  }
}

async function keepPage(request, answer) {
  const cache = await caches.open(PAGES);
  // Also what must no longer be shown: a page that is gone takes its copy along.
  if (!answer.ok || answer.redirected) return cache.delete(request);
  await cache.put(request, answer);
  const kept = await cache.keys();
  for (const old of kept.slice(0, Math.max(0, kept.length - MOST_PAGES))) await cache.delete(old);
}
