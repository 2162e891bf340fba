"""No I/O, no trio, no clock: the values of a run and the laws that order them."""
