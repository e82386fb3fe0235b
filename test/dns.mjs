// A name server for one name: answers A and AAAA queries for NAME with loopback, all else with NXDOMAIN.
// Usage: node dns.mjs ADDRESS PORT NAME
import dgram from 'node:dgram'

const [address, port, name] = process.argv.slice(2)
const answers = {
  1: Buffer.from([127, 0, 0, 1]),
  28: Buffer.concat([Buffer.alloc(15), Buffer.from([1])]),
}

const socket = dgram.createSocket('udp4')
socket.on('message', (query, peer) => {
  const labels = []
  let at = 12
  while (query[at]) {
    labels.push(query.toString('latin1', at + 1, at + 1 + query[at]))
    at += 1 + query[at]
  }
  const known = labels.join('.').toLowerCase() === name
  const data = known && answers[query.readUInt16BE(at + 1)]
  const head = Buffer.from([query[0], query[1], 0x81, known ? 0x80 : 0x83, 0, 1, 0, data ? 1 : 0, 0, 0, 0, 0])
  const answer = [head, query.subarray(12, at + 5)]
  if (data) {
    // A pointer to the question's name, then type, class IN, a minute to live, length, address.
    answer.push(Buffer.from([0xc0, 12, ...query.subarray(at + 1, at + 5), 0, 0, 0, 60, 0, data.length]), data)
  }
  socket.send(Buffer.concat(answer), peer.port, peer.address)
})
socket.bind(Number(port), address, () => console.log('listening'))
