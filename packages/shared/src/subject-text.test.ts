import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { SubjectRule } from './policy.ts'
import { formatSubjectField, formatSubjectRule, parseSubjectRule } from './subject-text.ts'

const RULES: Readonly<Record<string, SubjectRule>> = {
  'acme:C=DE,O=Acme\\2c Inc.,CN=sensor-*': {
    ca: 'acme',
    fields: [
      { type: 'C', equals: 'DE' },
      { type: 'O', equals: 'Acme, Inc.' },
      { type: 'CN', matches: 'sensor-*' },
    ],
  },
  'a-1:emailAddress=eve\\40x.org,O:printable=\\5c41\\2a\\20': {
    ca: 'a-1',
    fields: [
      { type: 'emailAddress', equals: 'eve@x.org' },
      { type: 'O', equals: '\\41* ', string: 'printable' },
    ],
  },
  'acme:CN=Bär\\5c \\e2\\82\\ac*b': { ca: 'acme', fields: [{ type: 'CN', matches: 'Bär\\ €*b' }] },
}

describe('subjects as text', () => {
  it('say the same when they are read back', () => {
    for (const [text, rule] of Object.entries(RULES)) {
      assert.equal(formatSubjectRule(rule), text)
      assert.deepEqual(parseSubjectRule(text), rule)
    }
  })

  it('may be pasted from the log, or written by hand', () => {
    const rule = {
      ca: 'acme',
      fields: [
        { type: 'C', equals: 'DE' },
        { type: 'emailAddress', equals: 'a@b.co' },
      ],
    }
    for (const text of [
      'x509:acme:C=DE,emailAddress=a\\40b.co',
      'acme:C=DE, emailAddress=a@b.co',
      'acme:C:printable=DE,emailAddress=a\\40b.co',
    ]) {
      assert.deepEqual(parseSubjectRule(text), rule)
    }
  })

  it('never look alike', () => {
    const field = (text: string) => formatSubjectField({ type: 'CN', text })
    const texts = ['a,CN=b', 'a\\2cCN\\3db', 'a', 'a ', ' a', 'a*', 'a\\2a', 'a@b', 'a\\', 'a\\5c']
    assert.equal(new Set(texts.map(field)).size, texts.length)
    for (const text of texts) {
      assert.deepEqual(parseSubjectRule(`acme:${field(text)}`).fields, [{ type: 'CN', equals: text }])
    }
  })

  it('are refused where they say nothing, or two things', () => {
    for (const [text, problem] of [
      ['', /not CA:FIELD=TEXT/],
      ['C=DE', /not CA:FIELD=TEXT/],
      ['acme:', /not CA:FIELD=TEXT/],
      ['Acme:C=DE', /not CA:FIELD=TEXT/],
      ['acme:CN', /"CN" is not FIELD=TEXT/],
      ['acme:CN=', /"CN=" is not FIELD=TEXT/],
      ['acme:C=DE,', /"" is not FIELD=TEXT/],
      ['acme:XX=1', /XX is none of CN/],
      ['acme:toString=1', /toString is none of CN/],
      ['acme:CN:bmp=1', /bmp is none of utf8/],
      ['acme:CN=a\\b', /two hexadecimal digits/],
      ['acme:CN=a\\', /two hexadecimal digits/],
      ['acme:CN=\\ff', /is no text/],
      ['acme:CN=a\\2a*', /beside one of a pattern/],
      [`acme:CN=${'a'.repeat(2_048)}`, /not CA:FIELD=TEXT/],
    ] as const) {
      assert.throws(() => parseSubjectRule(text), { code: 'USAGE_INVALID', message: problem }, text)
    }
  })
})
