"use strict";
// Keeps the index up to date: asks for the progress, and takes the page anew when it has changed.
const EVERY = 3000; // milliseconds

async function answer(path) {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) throw new Error(response.statusText);
  return response;
}

async function renew() {
  const text = await (await answer("/")).text();
  const main = new DOMParser().parseFromString(text, "text/html").querySelector("main");
  const old = document.querySelector("main");
  const open = new Set([...old.querySelectorAll("details[open]")].map((d) => d.dataset.sweep));
  for (const details of main.querySelectorAll("details")) details.open = open.has(details.dataset.sweep);
  const focused = document.activeElement?.getAttribute("href");
  old.replaceWith(main);
  if (focused) main.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

async function look() {
  try {
    const { version } = await (await answer("/progress.json")).json();
    if (version !== document.querySelector("main").dataset.version) await renew();
    document.getElementById("lost").hidden = true;
  } catch {
    document.getElementById("lost").hidden = false;
  }
  setTimeout(look, EVERY);
}

setTimeout(look, EVERY);
