// Browsers refuse workers to pages that are opened from disk. There the search runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(script) {
      super()
      const url = new URL(script, document.baseURI)
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      const inside = frame.contentWindow
      const load = source => new Promise((done, failed) => {
        const script = inside.document.createElement("script")
        Object.assign(script, { src: new URL(source, url).href, onload: done, onerror: failed })
        inside.document.head.append(script)
      })
      inside.postMessage = data => this.answer(data)
      inside.importScripts = (...sources) => sources.reduce((before, one) => before.then(() => load(one)), Promise.resolve())
      this.ready = load(url)
      this.inside = inside
    }

    answer(data) {
      const message = new MessageEvent("message", { data })
      this.dispatchEvent(message)
      if (this.onmessage) this.onmessage(message)
    }

    postMessage(data) {
      this.ready.then(() => {
        const message = new MessageEvent("message", { data })
        this.inside.dispatchEvent(message)
      })
    }

    terminate() {}
  }
}
