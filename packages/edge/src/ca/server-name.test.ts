import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parseServerName } from './server-name.ts'

const RULES = { edgeNames: ['edge.mycorp.com', '*.tunnels.example.org'], allowWildcard: false }
const WITH_WILDCARD = { ...RULES, allowWildcard: true }

describe('a name of a private service', () => {
  const right: [text: string, value: string, type: 'dns' | 'ip'][] = [
    ['db.internal', 'db.internal', 'dns'],
    ['DB-1.Internal', 'db-1.internal', 'dns'],
    ['xn--bcher-kva.internal', 'xn--bcher-kva.internal', 'dns'],
    ['otheredge.mycorp.com', 'otheredge.mycorp.com', 'dns'],
    ['mycorp.com', 'mycorp.com', 'dns'],
    ['10.0.0.5', '10.0.0.5', 'ip'],
    ['2001:DB8::7', '2001:db8:0:0:0:0:0:7', 'ip'],
  ]
  for (const [text, value, type] of right) {
    it(`may be ${text}`, () => {
      const parsed = parseServerName(text, RULES)
      assert.equal(parsed.type, type)
      if (type === 'dns') assert.equal(parsed.value, value)
      else assert.ok(parsed.value === value || parsed.value === '2001:db8::7')
    })
  }

  const wrong: [text: string, why: RegExp][] = [
    ['', /no DNS name/],
    ['db', /one label/],
    ['internal.', /no DNS name/],
    ['db.internal.', /no DNS name/],
    ['.db.internal', /no DNS name/],
    ['db..internal', /no DNS name/],
    ['db_1.internal', /no DNS name/],
    ['-db.internal', /no DNS name/],
    ['db-.internal', /no DNS name/],
    ['ab--cd.internal', /no DNS name/],
    ['bücher.internal', /no DNS name/],
    ['db.internal\0.evil.com', /no DNS name/],
    ['db.internal,DNS:edge.mycorp.com', /no DNS name/],
    ['db.internal:5432', /no DNS name/],
    ['https://db.internal', /no DNS name/],
    ['1.2.3', /no DNS name/],
    ['10.0.0.256', /no DNS name/],
    ['010.0.0.5', /no DNS name/],
    [`${'a'.repeat(64)}.internal`, /no DNS name/],
    [`${'a.'.repeat(127)}internal`, /no DNS name/],
    ['*.db.internal', /every name below/],
    ['*.internal', /one label/],
    ['*', /no DNS name/],
    ['db.*.internal', /no DNS name/],
    ['edge.mycorp.com', /a name of the edge/],
    ['EDGE.mycorp.com', /a name of the edge/],
    ['mtls.edge.mycorp.com', /a name of the edge/],
    ['crimson-thunder-8434.edge.mycorp.com', /a name of the edge/],
    ['a.b.edge.mycorp.com', /a name of the edge/],
    ['tunnels.example.org', /a name of the edge/],
    ['db.tunnels.example.org', /a name of the edge/],
    ['127.0.0.1', /everybody's own machine/],
    ['::1', /everybody's own machine/],
    ['0.0.0.0', /no address of one machine/],
    ['::', /no address of one machine/],
    ['224.0.0.1', /no address of one machine/],
    ['255.255.255.255', /no address of one machine/],
    ['ff02::1', /no address of one machine/],
    ['::ffff:10.0.0.5', /in disguise/],
    ['fe80::1%eth0', /zone/],
  ]
  for (const [text, why] of wrong) {
    it(`may not be ${JSON.stringify(text).slice(0, 60)}`, () => {
      assert.throws(() => parseServerName(text, RULES), { message: why })
    })
  }

  it('may be a wildcard for whoever asks, but none that covers the edge', () => {
    assert.equal(parseServerName('*.db.internal', WITH_WILDCARD).value, '*.db.internal')
    assert.equal(parseServerName('*.com.example', WITH_WILDCARD).value, '*.com.example')
    for (const text of ['*.mycorp.com', '*.edge.mycorp.com', '*.a.edge.mycorp.com', '*.example.org']) {
      assert.throws(() => parseServerName(text, WITH_WILDCARD), { message: /a name of the edge/ }, text)
    }
    assert.throws(() => parseServerName('*.internal', WITH_WILDCARD), { message: /one label/ })
  })
})
