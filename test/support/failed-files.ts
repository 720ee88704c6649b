import type { TestEvent } from 'node:test/reporters'

/** A reporter for node's test runner: one line for each file in which a test failed, perhaps several times. */
export default async function* listFailedFiles(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of events) {
    if (event.type === 'test:fail' && event.data.file !== undefined) yield `${event.data.file}\n`
  }
}
