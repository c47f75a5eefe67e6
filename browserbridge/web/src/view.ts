// The view: shows the state, and passes on what a person does.

import type { App, LogEntry, State } from "./app";
import { words } from "./errors";
import { slotsAt } from "./machine";
import { short } from "./identity";

const mostShown = 12; // running tasks
const drawEvery = 150; // at the most; milliseconds. What is computed needs the machine more

/** View is the page that people see. */
export class View {
  private scheduled = false;
  private drawn = 0; // when, by performance.now
  private shownLog: LogEntry | undefined;
  private app!: App;

  /** bind connects the page's buttons to the app. */
  bind(app: App): void {
    this.app = app;
    on("code-form", "submit", (event) => {
      event.preventDefault();
      try {
        app.typeCode(input("code").value);
        text("code-error", "");
      } catch (error) {
        text("code-error", words(error));
      }
    });
    on("retry", "click", () => app.hurry());
    on("rejoin", "click", () => app.rejoin());
    on("pause", "click", () => app.setPaused(!app.state().paused));
    on("leave", "click", () => app.leave());
    on("throttle", "input", () => this.showLimit(Number(input("throttle").value)));
    on("throttle", "change", () => app.setThrottle(Number(input("throttle").value)));
    on("name", "change", () => app.setName(input("name").value));
    setInterval(() => {
      app.second();
      this.changed();
    }, 1000);
    this.render(app.state());
    const state = app.state();
    input("throttle").value = String(state.throttle);
  }

  /** changed has the page drawn again soon. */
  changed(): void {
    if (this.scheduled || !this.app) return;
    this.scheduled = true;
    const draw = () => {
      this.scheduled = false;
      this.drawn = performance.now();
      this.render(this.app.state());
    };
    setTimeout(() => requestAnimationFrame(draw), this.drawn + drawEvery - performance.now());
  }

  private render(state: State): void {
    this.showLink(state);
    this.showWork(state);
    this.showControls(state);
    show("history", state.log.length > 0);
    this.showLog(state.log);
    text("device", state.deviceID ? `Device ${short(state.deviceID)}` : "");
  }

  private showLink(state: State): void {
    const { link } = state;
    document.body.dataset.link = link.kind;
    document.body.toggleAttribute("data-paused", state.paused);
    const [headline, detail] = sentence(state);
    text("headline", headline);
    text("detail", detail);
    if (link.kind === "connected") text("swarm", link.swarm || "Ostrich");
    document.title = link.kind === "connected" ? `${link.swarm} · Ostrich` : "Ostrich";
    show("retry", link.kind === "waiting");
    show("rejoin", link.kind === "left");
    show("code-form", link.kind === "refused" || link.kind === "uninvited");
    const belongs = link.kind === "connected" || link.kind === "searching" || link.kind === "waiting";
    for (const part of ["figures", "work", "controls"]) show(part, belongs);
  }

  private showWork(state: State): void {
    const { device } = state;
    text("done", device.done.toLocaleString("en"));
    text("speed", state.speed >= 10 ? Math.round(state.speed).toLocaleString("en") : state.speed.toFixed(1).replace(/\.0$/, ""));
    text("busy", String(device.running.length));
    text("slots", String(state.paused ? 0 : device.slots));
    const shown = device.running.slice(0, mostShown);
    if (device.running.length > mostShown) shown.push(`and ${device.running.length - mostShown} more`);
    const idle = state.paused ? "Paused." : "Nothing at the moment.";
    list("running", shown.length > 0 ? shown : [idle], shown.length === 0);
    const parts = [];
    if (device.waiting > 0) parts.push(`${device.waiting.toLocaleString("en")} waiting here`);
    if (device.failed > 0) parts.push(`${device.failed.toLocaleString("en")} failed so far`);
    text("queue", parts.join(" · "));
  }

  private showControls(state: State): void {
    const pause = element("pause");
    pause.textContent = state.paused ? "Go on" : "Pause";
    pause.setAttribute("aria-pressed", String(state.paused));
    pause.classList.toggle("primary", state.paused);
    const name = input("name");
    name.placeholder = state.link.kind === "connected" && state.link.device ? state.link.device : state.defaultName;
    if (document.activeElement !== name) name.value = state.name;
    const throttle = input("throttle");
    if (document.activeElement !== throttle) {
      throttle.value = String(state.throttle);
      this.showLimit(state.throttle);
    }
    text("screen", {
      held: "The screen stays on while this page works.",
      free: "",
      impossible: "This browser lets the screen go dark on a page like this, and a phone then stops working: keep it on in the system's settings.",
    }[state.screen]);
  }

  private showLimit(percent: number): void {
    const { cores } = this.app.state();
    const slots = slotsAt(percent);
    text("limit", `${percent} % · ${slots} of ${cores} ${cores === 1 ? "core" : "cores"}`);
  }

  private showLog(log: LogEntry[]): void {
    const last = log.at(-1);
    if (last === this.shownLog) return;
    this.shownLog = last;
    element("log").replaceChildren(
      ...[...log].reverse().map(({ time, text }) => {
        const line = document.createElement("li");
        const when = document.createElement("time");
        when.dateTime = time.toISOString();
        when.textContent = time.toLocaleTimeString("en-GB");
        const what = document.createElement("span");
        what.textContent = text;
        line.append(when, what);
        return line;
      }),
    );
  }
}

/** sentence says how things stand. */
function sentence(state: State): [string, string] {
  const { link } = state;
  switch (link.kind) {
    case "starting":
      return ["Starting …", ""];
    case "uninvited":
      return ["Join a swarm", link.why || "Open an invite's link, scan its QR code, or type its short code."];
    case "searching":
      return ["Connecting …", `through ${link.bridge}`];
    case "waiting":
      return ["Not connected", `${link.why} Trying again in ${Math.max(1, Math.ceil((link.until - Date.now()) / 1000))} s.`];
    case "refused":
      return ["This device was not let in", link.why];
    case "left":
      return ["You have left", "This device does nothing more for the swarm."];
    case "connected": {
      const how = `Connected through ${link.bridge}, coordinator ${link.coordinator}`;
      if (state.paused) return ["Paused", how];
      return [state.device.running.length > 0 ? "Computing" : "Ready", how];
    }
  }
}

function element(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no ${id}`);
  return found;
}

function input(id: string): HTMLInputElement {
  return element(id) as HTMLInputElement;
}

function on(id: string, event: string, f: (event: Event) => void): void {
  element(id).addEventListener(event, f);
}

function text(id: string, content: string): void {
  const found = element(id);
  if (found.textContent !== content) found.textContent = content;
}

function show(id: string, shown: boolean): void {
  element(id).hidden = !shown;
}

function list(id: string, items: string[], none: boolean): void {
  const found = element(id);
  const key = items.join("\n");
  if (found.dataset.key === key) return;
  found.dataset.key = key;
  found.replaceChildren(
    ...items.map((item) => {
      const line = document.createElement("li");
      line.textContent = item;
      if (none) line.className = "none";
      return line;
    }),
  );
}
