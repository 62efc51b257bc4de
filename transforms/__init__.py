"""What happens to documents: kernels that know the subject, and Beam stages that wire them."""
