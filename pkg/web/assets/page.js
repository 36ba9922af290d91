// Keeps the page up to date. Without it the page is one that is reloaded by hand.
"use strict";
(() => {
  const body = document.body;
  const live = document.getElementById("live");
  const news = document.getElementById("news");
  let skew = Number(body.dataset.now) * 1000 - Date.now(); // the clock of the PBX, seen from here

  // The words are those of the server (wording.Short).
  const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  const span = (seconds) => {
    for (let i = 0; i < units.length; i++) {
      const next = i + 1 < units.length ? units[i + 1] : units[i];
      const whole = Math.round(seconds / next[1]) * next[1];
      if (whole < units[i][1]) continue;
      const rest = whole % units[i][1];
      return Math.floor(whole / units[i][1]) + units[i][0] + (rest > 0 ? " " + Math.floor(rest / next[1]) + next[0] : "");
    }
    return "0s";
  };
  const set = (el, text) => { if (el.textContent !== text) el.textContent = text; };
  const tick = () => {
    if (document.hidden) return;
    const now = (Date.now() + skew) / 1000;
    for (const el of document.querySelectorAll("time[data-until]")) {
      const left = Number(el.dataset.until) - now;
      set(el, left >= 1 ? span(Math.round(left)) : "over");
    }
    for (const el of document.querySelectorAll("time[data-ago]")) {
      const past = now - Number(el.dataset.ago);
      set(el, past < 10 ? "just now" : past < 60 ? "seconds ago" : span(Math.floor(past / 60) * 60) + " ago");
    }
  };
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", tick);

  document.addEventListener("submit", (e) => { // one click is one change
    if (e.target.method !== "post") return;
    setTimeout(() => { for (const b of document.querySelectorAll("button[form], .buttons button")) b.disabled = true; }, 0);
    window.addEventListener("pageshow", () => { for (const b of document.querySelectorAll("button[form], .buttons button")) b.disabled = false; }, { once: true });
  });

  if (!("live" in body.dataset) || !live || !window.EventSource) return;

  const clock = (date) => date.toTimeString().slice(0, 8);
  const say = (state, text) => { live.hidden = false; live.className = "live " + state; set(live, text); };

  // What somebody points at or has chosen stays where it is until he lets go: the wrong line must not be under the finger.
  const held = new Map();
  const busy = (el) => el.contains(document.activeElement) || el.querySelector(".acts:hover") !== null ||
    (() => { const s = getSelection(); return s && !s.isCollapsed && el.contains(s.anchorNode); })();
  const renew = (name, html) => {
    const el = document.querySelector('[data-part="' + CSS.escape(name) + '"]');
    if (!el) return;
    if (busy(el)) { held.set(name, html); return; }
    held.delete(name);
    const before = new Set(Array.from(el.querySelectorAll("tr[data-key]"), (tr) => tr.dataset.key));
    const top = el.getBoundingClientRect().bottom < 0 ? el.offsetHeight : -1;
    const opened = Array.from(el.querySelectorAll("details[data-keep][open]"), (d) => d.dataset.keep);
    el.innerHTML = html; // made by the server's template, which escapes; the policy of the page runs no script in it
    for (const d of el.querySelectorAll("details[data-keep]")) d.open = opened.includes(d.dataset.keep);
    if (top >= 0) window.scrollBy(0, el.offsetHeight - top);
    if (name === "bans") { // the newest come first: those before any that was there
      const rows = Array.from(el.querySelectorAll("tr[data-key]"));
      const known = rows.findIndex((tr) => before.has(tr.dataset.key));
      const fresh = known < 0 ? rows : rows.slice(0, known);
      for (const tr of fresh) tr.classList.add("new");
      if (fresh.length === 1) news.textContent = "Banned: " + fresh[0].dataset.key;
      else if (fresh.length > 1) news.textContent = fresh.length + " more bans";
    }
    if (name === "numbers") title();
    tick();
  };
  setInterval(() => { for (const [name, html] of held) renew(name, html); }, 1000);
  const plain = document.title;
  const title = () => {
    const n = document.querySelector(".numbers");
    document.title = n && n.dataset.title !== "0" ? "(" + n.dataset.title + ") " + plain : plain;
  };
  title();

  let lost = null, heard = Date.now(), stream = null, again = 0;
  const fail = () => {
    lost = lost || new Date(heard);
    say("lost", "Connection to Ringwall lost since " + clock(lost) + ". What you see is of then; trying again.");
  };
  const well = (text, state) => {
    heard = Date.now();
    lost = null;
    say(state || "on", text || "Live");
  };
  const hello = (data) => {
    skew = data.now * 1000 - Date.now();
    if (String(data.act) !== body.dataset.act || data.script !== body.dataset.script) location.reload();
  };
  const listen = () => {
    clearTimeout(again);
    if (stream) stream.close();
    stream = new EventSource("/events");
    const on = (name, each) => stream.addEventListener(name, (e) => {
      well();
      let data;
      try { data = JSON.parse(e.data); } catch { return; }
      each(data);
    });
    on("hello", hello);
    on("beat", (data) => { skew = data.now * 1000 - Date.now(); });
    on("part", (data) => renew(data.part, data.html));
    stream.onerror = () => {
      if (stream.readyState !== EventSource.CLOSED) { fail(); return; } // it tries again by itself
      poll(); // refused: too many others, or not there
    };
  };
  // Where the server has no room for one more stream, the page is fetched again as a whole now and then.
  const poll = async () => {
    try {
      const answer = await fetch("/", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const el of page.querySelectorAll("[data-part]")) renew(el.dataset.part, el.innerHTML);
      skew = Number(page.body.dataset.now) * 1000 - Date.now();
      well("Renewed every 10 seconds: too many pages are open", "slow");
    } catch { fail(); }
    again = setTimeout(listen, 10000);
  };
  setInterval(() => { // a connection that died without a word, as after sleep
    if (Date.now() - heard < 30000 || (stream && stream.readyState === EventSource.CLOSED)) return;
    fail();
    heard = Date.now();
    listen();
  }, 5000);
  window.addEventListener("pagehide", () => { if (stream) stream.close(); });
  window.addEventListener("pageshow", (e) => { if (e.persisted) listen(); });
  say("", "Connecting …");
  listen();
})();
