import Limpet
