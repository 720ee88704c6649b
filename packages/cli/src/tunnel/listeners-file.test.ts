import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { explainProblems } from '../entry-file.ts'
import { type FindPlace, parseListenersFile } from './listeners-file.ts'

const findPlace: FindPlace = ({ host, edge }) => {
  if (!host.endsWith('.edge.example')) throw new PosternError('EDGE_UNKNOWN', `no edge serves ${host}`)
  return {
    host,
    label: host.split('.')[0],
    edge: { origin: edge ?? 'https://edge.example' },
  } as ReturnType<FindPlace>
}
const parse = (text: string) => parseListenersFile(text, '/etc/postern/listeners.yaml', findPlace)
const messages = (text: string) =>
  parse(text).problems.map(({ line, error }) => `${line} ${error.code} ${error.message}`)

describe('a file of listeners', () => {
  it('has a host and a local place for each, and what is said of one is said of no other', () => {
    const { entries, problems } = parse(`# databases
listeners:
  - host: db.edge.example
    local: 5432
  - { host: carbon.edge.example, local: 'unix:carbon.sock' }
  - host: web.edge.example
    local: 0.0.0.0:80
    edge: https://edge.example:8443
    unsafe_listen_all: true
    unsafe_any_local_user: true
`)
    assert.deepEqual(problems, [])
    assert.deepEqual(
      entries.map(({ line, place, local, unsafeAnyLocalUser }) => [
        line,
        place.host,
        place.edge.origin,
        local,
        unsafeAnyLocalUser,
      ]),
      [
        [3, 'db.edge.example', 'https://edge.example', { address: '127.0.0.1', port: 5432 }, false],
        [5, 'carbon.edge.example', 'https://edge.example', { path: '/etc/postern/carbon.sock' }, false],
        [6, 'web.edge.example', 'https://edge.example:8443', { address: '0.0.0.0', port: 80 }, true],
      ],
    )
  })

  it('names each bad entry with its line, and keeps the others', () => {
    const text = `listeners:
  - { host: a.edge.example, local: 1 }
  - { host: b.edge.example, local: 99999 }
  - { host: c.edge.example, local: 3, locale: de }
  - { host: d.elsewhere.example, local: 4 }
  - { local: 5 }
  - { host: [f.edge.example], local: 6 }
  - { host: g.edge.example, local: 7, unsafe_any_local_user: yes please }
  - { host: h.edge.example, local: '0.0.0.0:8' }
  - { host: i.edge.example, local: 1 }
  - nothing
  - { host: k.edge.example, local: 0 }
  - { host: l.edge.example, local: 11 }
`
    assert.deepEqual(messages(text), [
      '3 USAGE_INVALID "99999" is not a local address',
      '4 LISTENERS_INVALID "locale" is not a key of an entry, did you mean local?',
      '5 EDGE_UNKNOWN no edge serves d.elsewhere.example',
      '6 LISTENERS_INVALID the entry has no host',
      '7 LISTENERS_INVALID host must be text',
      '8 LISTENERS_INVALID unsafe_any_local_user must be true or false',
      '9 USAGE_INVALID 0.0.0.0 can be reached by other machines',
      '10 LISTENERS_INVALID 127.0.0.1:1 is taken by the entry of line 2 already',
      '11 LISTENERS_INVALID an entry is a section with keys, and aliases are not accepted',
      '12 LISTENERS_INVALID an entry names its port: nobody would know which one 0 became',
    ])
    assert.deepEqual(
      parse(text).entries.map(({ line }) => line),
      [2, 13],
    )
  })

  it('is refused as a whole when it is no such list', () => {
    const cases: [string, RegExp][] = [
      ['', /^1 LISTENERS_INVALID the file has to list them/],
      ['listeners:', /the file has to list them/],
      ['listeners: []', /the file has to list them/],
      ['- { host: a.edge.example, local: 1 }', /the file has to list them/],
      [
        'listeners:\n- { host: a.edge.example, local: 1 }\nlisteners: []',
        /^3 LISTENERS_INVALID Map keys must be unique/,
      ],
      ['listeners:\n- { host: a.edge.example, local: 1 }\nservices: []', /^3 .*"services" is not a key/],
      ['listeners:\n  - {', /LISTENERS_INVALID/],
      ['a: &a {}\nlisteners: [*a]', /aliases are not accepted/],
      [`listeners:\n${'- x\n'.repeat(1_001)}`, /more than 1000 entries/],
      [`#${'x'.repeat(1024 * 1024)}`, /larger than 1 MiB/],
    ]
    for (const [text, message] of cases) {
      assert.match(messages(text).join('\n'), message, text.slice(0, 60))
    }
  })

  it('is told in one failure at the start', () => {
    const { problems } = parse('listeners:\n- { host: a.edge.example }\n- { host: x, local: 2 }')
    const error = explainProblems('listeners.yaml', problems)
    assert.equal(error.message, 'listeners.yaml has 2 problems')
    assert.deepEqual(error.details?.lines, ['line 2: the entry has no local', 'line 3: no edge serves x'])
    assert.deepEqual([error.code, error.exitCode], ['LISTENERS_INVALID', 2])
    const one = explainProblems('listeners.yaml', problems.slice(0, 1))
    assert.equal(one.message, 'listeners.yaml, line 2: the entry has no local')
  })
})
