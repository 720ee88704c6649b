import assert from 'node:assert/strict'
import { test } from 'node:test'
import { browserWords, splitWords } from './browser.ts'

test('words are split as people quote them, and nothing is expanded', () => {
  const table: [string, string[]][] = [
    ['firefox', ['firefox']],
    ['  firefox   --new-window  ', ['firefox', '--new-window']],
    [`'/opt/My Browser/run' "a b" c\\ d`, ['/opt/My Browser/run', 'a b', 'c d']],
    [`a'b 'c"d e"f`, ['ab cd ef']],
    [`"say \\"hi\\""`, ['say "hi"']],
    ['$HOME `id` $(id) ; rm *', ['$HOME', '`id`', '$(id)', ';', 'rm', '*']],
    ["''", ['']],
    ['', []],
  ]
  for (const [text, words] of table) assert.deepEqual(splitWords(text), words, text)
})

test('the address takes the place of %s, or comes last', () => {
  assert.deepEqual(browserWords('firefox', 'https://e/?a=1&b'), ['firefox', 'https://e/?a=1&b'])
  assert.deepEqual(browserWords('x --url=%s -- y', 'https://e/$&'), ['x', '--url=https://e/$&', '--', 'y'])
})
