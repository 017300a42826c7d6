"""Knowledge distillation: the teacher, the contract of the methods, their kernels, and one file a method."""
