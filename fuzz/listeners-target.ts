import assert from 'node:assert/strict'
import { PosternError } from '@postern/shared/errors'
import { type FindPlace, parseListenersFile } from '../packages/cli/src/tunnel/listeners-file.ts'
import { isLoopback } from '../packages/cli/src/tunnel/local-user.ts'
import { mutateText } from './mutate.ts'
import type { Target } from './target.ts'

const FILES = [
  'listeners:\n  - host: db.edge.test\n    local: 5432\n  - { host: c.edge.test, local: "unix:c.sock" }\n',
  'listeners:\n- host: w.edge.test\n  local: 0.0.0.0:80\n  edge: https://edge.test:8443\n  unsafe_listen_all: true\n',
  'listeners:\n- { host: a.edge.test, local: "[::1]:1", unsafe_any_local_user: true } # one\n',
]
const WORDS = [
  '- ',
  '\n',
  ': ',
  '{',
  '[',
  '*a',
  '&a',
  '!!binary ',
  '---\n',
  '<<',
  'true',
  'null',
  '0x10',
  '\t',
  '"',
  '|',
]

const findPlace: FindPlace = ({ host }) => {
  if (!/^[a-z]+\.edge\.test$/.test(host)) throw new PosternError('EDGE_UNKNOWN', 'no such edge')
  return { host, label: 'a', edge: { origin: 'https://edge.test' } } as unknown as ReturnType<FindPlace>
}

/** Whatever it reads: what is open to other machines is said to be so, and every problem has a line of the file. */
export const LISTENERS_TARGET: Target = {
  name: 'listeners-file',
  cases: 5_000,
  run(random) {
    const text = mutateText(random.of(FILES), random, WORDS)
    const { entries, problems } = parseListenersFile(text, '/etc/postern/listeners.yaml', findPlace)
    assert.ok(entries.length + problems.length > 0)
    for (const { local } of entries) {
      if ('path' in local) assert.ok(local.path.startsWith('/'))
      else assert.ok(isLoopback(local.address) || text.includes('unsafe_listen_all'))
    }
    const lastLine = text.split('\n').length
    for (const { line, error } of problems) {
      assert.ok(error.code !== 'INTERNAL', error.message)
      assert.ok(line >= 1 && line <= lastLine, `line ${line} of ${lastLine}`)
    }
  },
}
