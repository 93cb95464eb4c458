"use strict";
// Updates the server's index: polls the progress, and loads the page again when it has changed.
const INTERVAL = 3000; // milliseconds

async function load(path) {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) throw new Error(response.statusText);
  return response;
}

async function reload() {
  const text = await (await load("/")).text();
  const main = new DOMParser().parseFromString(text, "text/html").querySelector("main");
  const old = document.querySelector("main");
  const open = new Set([...old.querySelectorAll("details[open]")].map((details) => details.dataset.sweep));
  for (const details of main.querySelectorAll("details")) details.open = open.has(details.dataset.sweep);
  const focused = document.activeElement?.getAttribute("href");
  old.replaceWith(main);
  if (focused) main.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

async function update() {
  try {
    const { version } = await (await load("/progress.json")).json();
    if (version !== document.querySelector("main").dataset.version) await reload();
    document.getElementById("disconnected").hidden = true;
  } catch {
    document.getElementById("disconnected").hidden = false;
  }
  setTimeout(update, INTERVAL);
}

setTimeout(update, INTERVAL);
