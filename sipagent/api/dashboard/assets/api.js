// The REST API as this page uses it. The key lives as long as the browser's tab.

const KEPT = "sipagent-key";
const V1 = "/api/v1";

export const key = {
  get value() { return sessionStorage.getItem(KEPT) ?? ""; },
  set value(text) { text ? sessionStorage.setItem(KEPT, text) : sessionStorage.removeItem(KEPT); },
};

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let whenUnknown = () => {};
export function onUnknownKey(action) { whenUnknown = action; }

async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { ...options.headers, "x-api-key": key.value } });
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  if (response.status === 401) whenUnknown();
  throw new Refused(response.status, said.message ?? `the node answered ${response.status}`);
}

export async function get(path, query = {}) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  return (await ask(`${V1}${path}${asked.size ? `?${asked}` : ""}`)).json();
}

export async function post(path, body = {}) {
  const options = { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  return (await ask(`${V1}${path}`, options)).json();
}

// A document of the API as a file of the browser's user.
export async function save(path, query, name) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  const url = URL.createObjectURL(await (await ask(`${V1}${path}?${asked}`)).blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

export const call = (id, path = "") => `/voice/calls/${encodeURIComponent(id)}${path}`;

export const health = async () => (await ask("/healthz")).json();

// Follows the redirect: the response's address is the signed one, which an audio element can use without a key.
export const recording = (id, stop) =>
  ask(`${V1}/recordings?${new URLSearchParams({ recording_id: id, expires_in: 14400 })}`, { signal: stop });

// Every event of the node as it happens, again and again until `stop` is aborted.
export async function watch(onEvent, onState, stop) {
  let pause = 500;
  while (!stop.aborted) {
    try {
      const response = await ask(`${V1}/events/stream`, { signal: stop });
      onState(true);
      pause = 500;
      await read(response.body.pipeThrough(new TextDecoderStream()).getReader(), onEvent);
    } catch (error) {
      if (stop.aborted || error.status === 401) return;
    }
    onState(false);
    await new Promise((resolve) => { setTimeout(resolve, pause); });
    pause = Math.min(2 * pause, 15000);
  }
}

async function read(reader, onEvent) {
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const messages = rest.split("\n\n");
    rest = messages.pop();
    for (const message of messages) {
      const data = message.split("\n").find((line) => line.startsWith("data: "));
      if (data) onEvent(JSON.parse(data.slice(6)));
    }
  }
}
