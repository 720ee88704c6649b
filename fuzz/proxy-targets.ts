import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { isIP } from 'node:net'
import { type IpEndpoint, parseEndpoint } from '@postern/shared/ip-address'
import {
  flowIdentityJwk,
  parseFlowIdentityKeys,
  signFlowIdentity,
  verifyFlowIdentity,
} from '@postern/shared/proxy-protocol/flow-identity'
import {
  type ProxyValue,
  type ReadProxyHeader,
  readProxyHeader,
  writeLocalHeader,
  writeProxyHeader,
} from '@postern/shared/proxy-protocol/header'
import { mutateBytes } from './mutate.ts'
import type { Random } from './random.ts'
import type { Target } from './target.ts'

const header: Target = {
  name: 'proxy-header',
  cases: 80_000,
  run(random) {
    const written = writeSome(random)
    const bytes = random.oneIn(4) ? written : Buffer.from(mutateBytes(written, random))
    const result = readProxyHeader(bytes)
    if (bytes === written) assert.notEqual(typeof result, 'string', 'its own header is not read')
    if (typeof result !== 'string') assertPlausible(result, bytes)
    // more bytes never change an answer, fewer never make one
    const earlier = readProxyHeader(bytes.subarray(0, random.below(bytes.length + 1)))
    if (result === 'incomplete') assert.equal(earlier, 'incomplete')
    else if (earlier !== 'incomplete') assert.deepEqual(earlier, result)
  },
}

function writeSome(random: Random): Buffer {
  if (random.oneIn(8)) return writeLocalHeader()
  const values: ProxyValue[] = Array.from({ length: random.below(4) }, () => ({
    type: random.below(256),
    value: Buffer.alloc(random.below(40), random.below(256)),
  }))
  return writeProxyHeader(someEndpoint(random), someEndpoint(random), values)
}

function someEndpoint(random: Random): IpEndpoint {
  const part = () => random.below(256)
  const host = random.oneIn(2)
    ? `${part()}.${part()}.${part()}.${part()}`
    : `2001:db8::${random.below(65_536).toString(16)}`
  return { host, port: random.below(65_536) }
}

function assertPlausible(read: Exclude<ReadProxyHeader, string>, bytes: Buffer): void {
  assert.ok(read.length <= bytes.length, 'longer than what was there')
  if (read.command === 'local') return
  for (const { host, port } of [read.source, read.destination]) {
    assert.ok(isIP(host) !== 0 && port >= 0 && port <= 65_535, `${host} ${port}`)
  }
  const held = read.values.reduce((sum, { value }) => sum + 3 + value.length, 0)
  assert.ok(held <= read.length, 'values that are not in it')
}

const { privateKey } = generateKeyPairSync('ed25519')
const NOW = 1_800_000_000_000
const KNOWN = {
  issuer: 'https://edge.example.com',
  service: 'db-1.edge.example.com',
  source: { host: '203.0.113.7', port: 50_514 },
  destination: { host: '2001:db8::1', port: 443 },
}
const TOKEN = Buffer.from(
  signFlowIdentity(
    {
      ...KNOWN,
      serviceId: 'svc_1',
      identityId: 'idn_1',
      email: 'ann@mycorp.com',
      flowId: 'f-1',
      connectorId: 'con_1',
    },
    { id: flowIdentityJwk(privateKey).kid, key: privateKey },
    NOW,
  ),
)
const KEYS = parseFlowIdentityKeys({ keys: [flowIdentityJwk(privateKey)] })

const identity: Target = {
  name: 'flow-identity',
  cases: 40_000,
  run(random) {
    const bytes = Buffer.from(mutateBytes(TOKEN, random))
    const verify = () => verifyFlowIdentity(bytes, { ...KNOWN, keys: KEYS, now: NOW })
    if (bytes.equals(TOKEN)) assert.equal(verify().email, 'ann@mycorp.com')
    else assert.throws(verify, { code: 'FLOW_IDENTITY_INVALID' })
  },
}

const LETTERS = '0123456789abcdef:.[]%'

const endpoint: Target = {
  name: 'endpoint',
  cases: 100_000,
  run(random) {
    const text = Array.from({ length: random.below(30) }, () => LETTERS[random.below(LETTERS.length)]).join(
      '',
    )
    const read = parseEndpoint(random.oneIn(2) ? `[${text}]:1` : text)
    assert.ok(read === undefined || (isIP(read.host) !== 0 && read.port <= 65_535), text)
  },
}

export const PROXY_TARGETS: readonly Target[] = [header, identity, endpoint]
