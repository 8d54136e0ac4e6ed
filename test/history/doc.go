// Package history tells whether what the users of several managers were told can be explained by one
// manager that never fails: whether the API is linearizable.
//
// [User] asks managers for things, at random or on purpose, and writes down what was asked and told into a
// [History]; porcupine looks for an order that explains all of it. What became of a write whose answer was
// lost is not known: it may take effect at any time, or never.
//
// Users of the simulation ask managers in the same process, in virtual time; those of the end-to-end tests
// ask real ones on machines. No program imports this package. Start reading at step, the model.
package history
