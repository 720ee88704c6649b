import assert from 'node:assert/strict'
import { test } from 'node:test'
import { labelOfHost, normalizeHost, parseServiceLabel } from './service-label.ts'

const GOOD = ['crimson-thunder-8434', 'abc', '8ball', 'a-b', 'a'.repeat(63)]
const BAD = [
  ...['', 'ab', 'a'.repeat(64), '-abc', 'abc-', 'Abc', 'a_b', 'a.b', 'a b', 'äbc', 'abc\n', 'ab\0c'],
  ...['xn--abc', 'ab--cd', 'mtls', 'www', 'localhost'],
]

test('reads good labels as they are', () => {
  for (const label of GOOD) assert.equal(parseServiceLabel(label), label)
})

test('refuses what is not a label, is an internationalized prefix or is kept for the edge', () => {
  for (const label of BAD) assert.throws(() => parseServiceLabel(label), { code: 'LABEL_INVALID' }, label)
})

test('finds the label of a host exactly one label below the domain', () => {
  for (const label of GOOD) assert.equal(labelOfHost(`${label}.edge.localhost`, 'edge.localhost'), label)
})

test('finds no label in the domain itself, deeper names, other domains and bad labels', () => {
  const hosts = [
    ...['edge.localhost', '.edge.localhost', 'a.abc.edge.localhost', 'abc.edge.example', 'abcedge.localhost'],
    ...BAD.map((label) => `${label}.edge.localhost`),
  ]
  for (const host of hosts) assert.equal(labelOfHost(host, 'edge.localhost'), undefined, host)
})

test('compares host names in lower case and without the last dot', () => {
  assert.equal(normalizeHost('ABC.Edge.Localhost.'), 'abc.edge.localhost')
  assert.equal(normalizeHost('abc.edge.localhost'), 'abc.edge.localhost')
})
