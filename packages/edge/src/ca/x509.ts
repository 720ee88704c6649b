// the order matters: the library's container asks for the metadata API while it loads
import 'reflect-metadata'
import * as x509 from '@peculiar/x509'

/** The one door to @peculiar/x509, so that nobody loads it the wrong way round. */
export { x509 }
