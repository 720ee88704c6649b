import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import type { FlowEnd, Receiver } from '@postern/shared/stream/flow-end'
import { HeldEnd } from './held-end.ts'

class ScriptedEnd implements FlowEnd {
  receiver!: Receiver
  readonly said: string[] = []
  receive(receiver: Receiver): void {
    this.receiver = receiver
  }
  write(): boolean {
    return true
  }
  end(): void {}
  pause(): void {
    this.said.push('pause')
  }
  resume(): void {
    this.said.push('resume')
  }
  abort(): void {}
}

function record(): { receiver: Receiver; heard: string[] } {
  const heard: string[] = []
  const receiver: Receiver = {
    chunk: (bytes) => heard.push(bytes.toString()),
    end: () => heard.push('<end>'),
    drain: () => heard.push('<drain>'),
    cut: (error) => heard.push(error.code),
  }
  return { receiver, heard }
}

test('what came before is handed on first, in order, and then everything directly', () => {
  const end = new ScriptedEnd()
  const held = new HeldEnd(end, () => assert.fail('not cut'))
  end.receiver.chunk(Buffer.from('a'))
  end.receiver.chunk(Buffer.from('b'))
  end.receiver.end()
  const { receiver, heard } = record()
  held.receive(receiver)
  assert.deepEqual(heard, [])
  held.resume()
  assert.deepEqual(heard, ['a', 'b', '<end>'])
  assert.equal(end.receiver, receiver)
  assert.deepEqual(end.said, ['resume'])
})

test('it stops reading at its bound', () => {
  const end = new ScriptedEnd()
  new HeldEnd(end, () => assert.fail('not cut'))
  for (let chunk = 0; chunk < 4; chunk++) end.receiver.chunk(Buffer.alloc(65_536))
  assert.deepEqual(end.said, ['pause'])
})

test('a cut is told at once, and again to the receiver', () => {
  const end = new ScriptedEnd()
  const cuts: string[] = []
  const held = new HeldEnd(end, (error) => cuts.push(error.code))
  end.receiver.cut(new PosternError('FLOW_CUT', 'gone'))
  assert.deepEqual(cuts, ['FLOW_CUT'])
  const { receiver, heard } = record()
  held.receive(receiver)
  held.resume()
  assert.deepEqual(heard, ['FLOW_CUT'])
})
