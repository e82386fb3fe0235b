// Drives headless Chromium by its DevTools protocol, over a pipe: no port, and no package.
import { spawn } from 'node:child_process'
import path from 'node:path'
import { until, work } from './lib.mjs'

/** Starts a browser, and opens one page: `evaluate` an expression there, `press` keys, `send` any command. */
export const browser = async (url, ...flags) => {
  const child = spawn('chromium', ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync', '--ignore-certificate-errors',
    `--user-data-dir=${path.join(work, `profile-${Date.now()}`)}`, '--remote-debugging-pipe', ...flags], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] })
  process.on('exit', () => child.kill('SIGKILL'))
  const [, , , input, output] = child.stdio
  const waiting = new Map()
  const seen = []
  let next = 1
  let unread = ''
  let session
  output.on('data', data => {
    unread += data
    const messages = unread.split('\0')
    unread = messages.pop()
    for (const message of messages.map(it => JSON.parse(it))) {
      if (!message.id) seen.push(message)
      else if (message.error) waiting.get(message.id).reject(new Error(message.error.message))
      else waiting.get(message.id).resolve(message.result)
      waiting.delete(message.id)
    }
  })
  const send = (method, params = {}) => new Promise((resolve, reject) => {
    waiting.set(next, { resolve, reject })
    input.write(`${JSON.stringify({ id: next, method, params, ...(session && { sessionId: session }) })}\0`)
    next += 1
  })
  const { targetId } = await send('Target.createTarget', { url: 'about:blank' })
  session = (await send('Target.attachToTarget', { targetId, flatten: true })).sessionId
  for (const domain of ['Page', 'Runtime', 'Log']) await send(`${domain}.enable`)
  const evaluate = async expression => {
    const { result, exceptionDetails } = await send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true })
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
    return result.value
  }
  const press = async key => {
    const text = key === 'Enter' ? '\r' : key.length === 1 ? key : undefined
    await send('Input.dispatchKeyEvent', { type: text ? 'keyDown' : 'rawKeyDown', key, text, ...(key === 'Enter' && { code: key, windowsVirtualKeyCode: 13 }) })
    await send('Input.dispatchKeyEvent', { type: 'keyUp', key })
  }
  const open = async url => {
    await send('Page.navigate', { url })
    await until(() => evaluate('document.readyState === "complete" && location.href !== "about:blank"'), 'the page')
  }
  await open(url)
  /** What the page's scripts and its policy complained about. */
  const complaints = () => seen.filter(it => it.method === 'Runtime.exceptionThrown' || (it.method === 'Log.entryAdded' && it.params.entry.level === 'error'))
    .map(it => it.params.exceptionDetails?.exception?.description ?? it.params.entry.text)
  return { child, send, evaluate, press, open, complaints, wait: (expression, what) => until(() => evaluate(expression), what ?? expression) }
}
