import assert from 'node:assert/strict'
import { test } from 'node:test'
import { lookupHost } from './lookup-host.ts'

for (const name of ['localhost', 'edge.localhost', 'crimson-thunder-8434.EDGE.localhost']) {
  test(`${name} is this machine`, async () => {
    const address = await new Promise((resolve, reject) => {
      lookupHost(name, {}, (error, found) => (error ? reject(error) : resolve(found)))
    })
    assert.equal(address, '127.0.0.1')
  })
}

test('answers with a list where one is wanted', async () => {
  const addresses = await new Promise((resolve, reject) => {
    lookupHost('edge.localhost', { all: true }, (error, found) => (error ? reject(error) : resolve(found)))
  })
  assert.deepEqual(addresses, [{ address: '127.0.0.1', family: 4 }])
})

test('a name that only ends like localhost is not', async () => {
  const error = await new Promise<NodeJS.ErrnoException | null>((resolve) => {
    lookupHost('notlocalhost.invalid', {}, (failure) => resolve(failure))
  })
  assert.ok(error)
})
