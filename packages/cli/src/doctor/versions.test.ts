import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compareVersions } from './versions.ts'

const cases: [own: string, edge: string, state: string, message: RegExp, fix?: RegExp][] = [
  ['0.1.0', '0.1.0', 'ok', /^postern and the edge are 0\.1\.0$/],
  ['0.1.0', '0.1.7', 'ok', /^postern is 0\.1\.0, the edge is 0\.1\.7$/],
  ['0.1.0', '0.2.3', 'warn', /is 0\.1\.0, .* 0\.2\.3: they do together/, /^install postern 0\.2\.3/],
  ['0.2.0', '0.1.0', 'warn', /they do together/, /operator install 0\.2\.0/],
  ['0.1.0', '0.3.0', 'warn', /more than one minor/, /^install postern 0\.3\.0/],
  ['1.1.0', '0.2.0', 'warn', /more than one minor/, /operator install 1\.1\.0/],
  ['0.9.0', '1.0.0', 'warn', /more than one minor/, /^install postern 1\.0\.0/],
  ['0.1.0', 'whatever', 'warn', /more than one minor/, /operator/],
]

for (const [own, edge, state, message, fix] of cases) {
  test(`postern ${own} at an edge of ${edge}: ${state}`, () => {
    const check = compareVersions(own, edge)
    assert.equal(check.state, state)
    assert.match(check.message, message)
    if (fix) assert.match(check.fix!, fix)
    else assert.equal(check.fix, undefined)
  })
}
