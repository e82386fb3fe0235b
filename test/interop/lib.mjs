// What the Node scripts share: starts the gateway and the client, speaks to them as a visitor, counts checks.
import { execFileSync, spawn } from 'node:child_process'
import crypto from 'node:crypto'
import { once } from 'node:events'
import fs from 'node:fs'
import http2 from 'node:http2'
import https from 'node:https'
import os from 'node:os'
import path from 'node:path'
import readline from 'node:readline'

const root = path.resolve(import.meta.dirname, '../..')
const bin = process.env.PTTH_BIN ?? path.join(process.env.CARGO_TARGET_DIR ?? path.join(root, 'target'), 'release')

export const work = fs.mkdtempSync(path.join(os.tmpdir(), '2ptth-'))
const children = []
let failed = 0

export const within = (seconds, promise, what) => {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${seconds} s`)), seconds * 1000)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** Runs `test` and prints an `ok` or `not ok` line. */
export const check = async (sentence, test, seconds = 20) => {
  try {
    await within(seconds, test(), sentence)
    console.log(`ok - ${sentence}`)
  } catch (err) {
    failed++
    console.log(`not ok - ${sentence}`)
    console.log(String(err.stack ?? err).replace(/^/gm, '# '))
  }
}

/** Repeats `test` until it returns something true. */
export const until = async (test, what, seconds = 10) => {
  const deadline = Date.now() + seconds * 1000
  for (;;) {
    const result = await test()
    if (result) return result
    if (Date.now() > deadline) throw new Error(`${what}: not within ${seconds} s`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

export const start = (program, args, env = {}) => {
  const name = `${program}-${children.length}`
  const child = spawn(path.join(bin, program), args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  child.lines = []
  child.log = ''
  child.on('error', err => { throw err })
  child.stderr.on('data', data => { child.log += data })
  readline.createInterface(child.stdout).on('line', line => child.lines.push(line))
  child.ended = once(child, 'exit')
  children.push({ name, child })
  return child
}

export const stop = async child => {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill()
  await within(10, child.ended, 'stopping').catch(() => child.kill('SIGKILL'))
}

/** Starts a gateway; its last printed line is the client's whole command: the token and the port come from there. */
export const gateway = async (...args) => {
  const child = start('2ptth-server', args)
  await until(() => child.lines.at(-1)?.includes('2ptth-client') || child.exitCode !== null, "the client's command")
  const line = child.lines.at(-1) ?? ''
  return { child, token: /\bTOKEN=(\S+)/.exec(line)?.[1], port: Number(/ \S+:(\d+) http:/.exec(line)?.[1]) }
}

/** Ends everything and leaves with the verdict. */
export const finish = async () => {
  for (const { child } of children) await stop(child)
  if (failed) for (const { name, child } of children) console.error(`--- ${name}\n${child.log.split('\n').slice(-20).join('\n')}`)
  fs.rmSync(work, { recursive: true })
  process.exit(failed ? 1 : 0)
}
process.on('exit', () => children.forEach(({ child }) => child.kill('SIGKILL')))

/** The key in a token: 32 bytes of seed, in base64url. The prefix is RFC 8410's, of PKCS#8. */
export const keyOf = token => crypto.createPrivateKey({
  key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), Buffer.from(token.replace(/^2ptth_/, ''), 'base64url')]),
  format: 'der',
  type: 'pkcs8',
})

export const newToken = () => `2ptth_${crypto.randomBytes(32).toString('base64url')}`

const openssl = args => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'ignore'], encoding: 'utf8' })

/** A self-signed certificate of that key, in PEM. */
export const selfSigned = (key, name) => {
  const file = path.join(work, 'self-signed.key')
  fs.writeFileSync(file, key.export({ format: 'pem', type: 'pkcs8' }))
  return openssl(['req', '-x509', '-new', '-key', file, '-subj', `/CN=${name}`, '-days', '1'])
}

/** A CA's certificate, and a certificate for `localhost` that it signed: `{ ca, cert, key }`, in PEM. */
export const issued = () => {
  const file = name => path.join(work, name)
  openssl(['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=interop CA',
    '-keyout', file('ca.key'), '-out', file('ca.pem'), '-days', '1'])
  openssl(['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=localhost',
    '-keyout', file('key.pem'), '-out', file('csr.pem')])
  fs.writeFileSync(file('ext'), 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n')
  openssl(['x509', '-req', '-in', file('csr.pem'), '-CA', file('ca.pem'), '-CAkey', file('ca.key'), '-CAcreateserial',
    '-extfile', file('ext'), '-out', file('cert.pem'), '-days', '1'])
  const read = name => fs.readFileSync(file(name), 'utf8')
  return { ca: read('ca.pem'), caFile: file('ca.pem'), cert: read('cert.pem'), key: read('key.pem') }
}

const collect = async stream => {
  const chunks = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** One request on a connection of its own, over HTTP/1.1. */
export const h1 = (port, { method = 'GET', path = '/', headers = {}, body, trailers } = {}) => new Promise((resolve, reject) => {
  const request = https.request({
    host: 'localhost', port, method, path, agent: false, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'],
    headers: { ...headers, ...(trailers && { 'transfer-encoding': 'chunked', trailer: Object.keys(trailers).join(', ') }) },
  })
  const informational = []
  request.on('error', reject)
  request.on('information', info => informational.push(info))
  request.on('response', async response => {
    try {
      const body = await collect(response)
      resolve({ status: response.statusCode, headers: response.headers, body, trailers: response.trailers, informational })
    } catch (err) { reject(err) }
  })
  if (trailers) request.addTrailers(trailers)
  request.end(body)
})

/** A connection over HTTP/2, as a visitor's. */
export const connect = async (port, options = {}) => {
  const session = http2.connect(`https://localhost:${port}`, { rejectUnauthorized: false, ...options })
  session.on('error', () => {})
  await once(session, 'connect')
  return session
}

/** One request over HTTP/2. */
export const ask = (session, { method = 'GET', path = '/', headers = {}, body, trailers } = {}) => new Promise((resolve, reject) => {
  const stream = session.request({ ':method': method, ':path': path, ...headers }, { endStream: !body && !trailers, waitForTrailers: !!trailers })
  const informational = []
  let head = {}
  let tail = {}
  stream.on('error', reject)
  stream.on('headers', headers => informational.push(headers))
  stream.on('response', headers => { head = headers })
  stream.on('trailers', headers => { tail = headers })
  if (trailers) stream.on('wantTrailers', () => stream.sendTrailers(trailers))
  if (body || trailers) stream.end(body)
  collect(stream).then(body => {
    if (stream.rstCode) reject(new Error(`reset with ${stream.rstCode}`))
    else resolve({ status: head[':status'], headers: head, body, trailers: tail, informational })
  }, reject)
})
